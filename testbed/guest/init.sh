#!/bin/busybox sh
# The guest's first process: this machine's files read-only under an overlay, a shared folder, then the command.
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in @MODULES@; do $B insmod /modules/$module.ko || echo "testbed: cannot load module $module"; done
fail() { echo "testbed: cannot mount $1"; $B poweroff -f; }
OPTIONS=trans=virtio,version=9p2000.L,msize=524288
$B mount -t 9p -o ro,cache=loose,$OPTIONS root /host || fail "the host's files"
$B mount -t tmpfs -o size=80% tmpfs /written && $B mkdir /written/upper /written/work
$B mount -t overlay -o lowerdir=/host,upperdir=/written/upper,workdir=/written/work overlay /guest || fail "the overlay"
for folder in proc sys dev; do $B mount --move /$folder /guest/$folder; done
$B mkdir -p /guest/dev/shm /guest/dev/pts /guest/out /guest/root
$B mount -t tmpfs tmpfs /guest/dev/shm; $B mount -t devpts devpts /guest/dev/pts
$B mount -t tmpfs tmpfs /guest/run
for cpu in /caches/cpu*; do [ ! -d $cpu ] || $B mount --bind $cpu /guest/sys/devices/system/cpu/${cpu##*/}/cache; done # testbed/firmware.py
$B mount -t 9p -o cache=none,$OPTIONS out /guest/out || fail "the shared folder"
$B ip link set lo up 2>/dev/null
$B hostname @NAME@
echo @IDENTITY@ > /guest/etc/machine-id
$B cat /guest/proc/uptime > /guest/out/.testbed-started
$B chroot /guest /bin/sh /out/.testbed-command > /guest/out/.testbed-stdout 2> /guest/out/.testbed-stderr < /dev/null
echo $? > /guest/out/.testbed-status
$B sync
$B poweroff -f
