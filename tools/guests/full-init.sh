#!/bin/sh
# First process of the full guest: load the disk's driver, find the root file system, hand over to systemd.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/modules/$module"; done < /modlist
tries=0
until root=$(findfs LABEL=@LABEL@ 2>/dev/null); do
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then echo "no disk with a file system @LABEL@"; exec /bin/sh; fi
    usleep 100000
done

# Let the second partition end where the disk does: cloud-init's growpart takes many times longer without KVM.
disk=${root%[0-9]}
read -r sectors < "/sys/class/block/${disk#/dev/}/size"
read -r start < "/sys/class/block/${root#/dev/}/start"
read -r size < "/sys/class/block/${root#/dev/}/size"
room=$((sectors - start))
if [ $room -gt 4294967295 ]; then room=4294967295; fi
if [ $room -gt $((size + 2048)) ]; then
    bytes=$(printf '\\%03o' $((room & 255)) $((room >> 8 & 255)) $((room >> 16 & 255)) $((room >> 24 & 255)))
    printf "$bytes" | dd of="$disk" bs=1 seek=$((446 + 16 + 12)) conv=notrunc 2>/dev/null
    blockdev --rereadpt "$disk"
fi

mount -t ext4 -o noatime "$root" /mnt
mount --move /dev /mnt/dev
umount /sys /proc
exec switch_root /mnt /sbin/init
