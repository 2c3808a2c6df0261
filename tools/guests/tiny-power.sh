#!/bin/sh
# The power button was pressed.
poweroff
