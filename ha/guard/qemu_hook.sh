#!/bin/sh
# libvirt's QEMU hook: no guest of ours starts, and none comes in by migration, unless the guard allows it.
#
# Run by libvirtd as /etc/libvirt/hooks/qemu NAME OPERATION SUB-OPERATION EXTRA, three times for each start: so what is no
# start (`start`, `started`, `reconnect`, `stopped`, `release`, …) passes here, at a tenth of what it costs to run Python.
# Guests that are not ours pass too. For the others qemu_hook_ask.py, beside this file, asks; where it is missing nothing starts.
case "$2/$3" in
    prepare/begin | migrate/begin | restore/begin)
        case "$1" in
            kvorum-*) exec "${0%/*}/qemu_hook_ask.py" "$1" ;;
        esac
        ;;
esac
