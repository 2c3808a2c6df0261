/* A wall clock that can be set for a few processes: an offset is added to what they read as the time of day.
 *
 * Preloaded (LD_PRELOAD) into the agents and guards of the matrix' row of clocks by `tools/ha_matrix/services.py`, because
 * namespaces share the machine's wall clock. The offset, a signed 64-bit number of seconds, lies in the file that the environment
 * names; it is made with no offset if it is not there, and mapped once, so that reading it costs a load. Monotonic and
 * boot-time clocks pass through. Without a file that can be mapped there is no offset. 64-bit machines only.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

_Static_assert(sizeof(time_t) == 8, "64-bit machines only");

static const int64_t none = 0;
static const volatile int64_t *offset_s = &none;
static int (*ask)(clockid_t, struct timespec *);

__attribute__((constructor)) static void map_offset(void) {
    ask = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    const char *path = getenv("KVORUM_LAB_WALL_CLOCK");
    int file = path == NULL ? -1 : open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0)
        return;
    if (ftruncate(file, sizeof(int64_t)) == 0) {
        void *mapped = mmap(NULL, sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
        if (mapped != MAP_FAILED)
            offset_s = mapped;
    }
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    /* Before the constructor ran, the kernel is asked without the C library. */
    int failed = ask != NULL ? ask(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset_s;
    return failed;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec read;
    int failed = clock_gettime(CLOCK_REALTIME, &read);
    if (!failed)
        *now = (struct timeval){read.tv_sec, read.tv_nsec / 1000};
    if (!failed && zone != NULL)
        *(struct timezone *)zone = (struct timezone){0, 0};
    return failed;
}

time_t time(time_t *result) {
    struct timespec read;
    time_t now = clock_gettime(CLOCK_REALTIME, &read) ? (time_t)-1 : read.tv_sec;
    if (result != NULL)
        *result = now;
    return now;
}
