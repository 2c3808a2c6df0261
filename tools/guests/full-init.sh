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
mount -t ext4 -o noatime "$root" /mnt
mount --move /dev /mnt/dev
umount /sys /proc
exec switch_root /mnt /sbin/init
