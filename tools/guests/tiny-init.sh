#!/bin/sh
# First process of the tiny guest: load drivers, then let busybox init keep the services of /etc/inittab.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/lib/modules/$module"; done < /modlist
hostname kvorum-tiny
ip link set lo up
exec /bin/busybox init
