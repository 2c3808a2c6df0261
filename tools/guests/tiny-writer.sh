#!/bin/sh
# Append (host, boot, counter) to the ring on the second partition ten times a second, for ever.
# A record is one sector, so it is written whole or not at all; slot = (counter - 1) % SLOTS.
DISK=/dev/vda2
SLOTS=@SLOTS@

word() {  # the first word of a file if it is harmless, else "-"
    value=-
    read -r value rest < "$1" 2>/dev/null
    case "$value" in ""|*[!A-Za-z0-9._:-]*) value=- ;; esac
}

counter_of_slot() {
    tag= found=0
    record=$(dd if=$DISK bs=512 skip="$1" count=1 2>/dev/null | tr -d '\0')
    set -- $record
    [ "$1" = @TAG@ ] && found=$2
}

word /sys/class/dmi/id/chassis_asset_tag; host=$value
word /sys/class/dmi/id/product_serial; serial=$value
word /proc/sys/kernel/random/boot_id; boot=$value

# The newest record: counters grow by one from slot to slot until the place last written.
counter_of_slot 0; first=$found; last=0
if [ "$first" -gt 0 ]; then
    low=0 high=$((SLOTS - 1))
    while [ $low -lt $high ]; do
        middle=$(((low + high + 1) / 2))
        counter_of_slot $middle
        if [ "$found" -eq $((first + middle)) ]; then low=$middle; else high=$((middle - 1)); fi
    done
    last=$((first + low))
fi

echo "kvorum-tiny: host $host, boot $boot, counting on from $last" > /dev/console
slot=$((last % SLOTS)) counter=$last
exec 3<>$DISK
dd bs=512 skip=$slot count=0 <&3 2>/dev/null
while :; do
    counter=$((counter + 1)) slot=$((slot + 1))
    printf '%-511s\n' "@TAG@ $counter $host $boot $EPOCHREALTIME $serial" >&3
    sync -d $DISK  # a flush, so that the host sees it too
    if [ $slot -ge $SLOTS ]; then slot=0; exec 3<>$DISK; fi
    usleep 84000
done
