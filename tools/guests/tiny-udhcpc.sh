#!/bin/sh
# udhcpc calls this with what it was given.
case "$1" in
    deconfig) ip addr flush dev "$interface" ;;
    bound|renew)
        [ -n "$mtu" ] && ip link set "$interface" mtu "$mtu"
        ip addr replace "$ip/$mask" dev "$interface"
        [ "$1" = bound ] && echo "kvorum-tiny: address $ip" > /dev/console
        for router in $router; do ip route replace default via "$router" dev "$interface"; break; done
        ;;
esac
exit 0
