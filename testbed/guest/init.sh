#!/bin/busybox sh
# The guest's first process: this machine's files read-only under an overlay, a shared folder, then the command. A guest of another architecture has a system of
# its own, under which this machine's other files lie where they lie here.
B=/bin/busybox
$B mount -t proc proc /proc; $B mount -t sysfs sys /sys; $B mount -t devtmpfs dev /dev
for module in @MODULES@; do $B insmod /modules/$module.ko || echo "testbed: cannot load module $module"; done
fail() { echo "testbed: cannot mount $1"; $B poweroff -f; }
OPTIONS=trans=virtio,version=9p2000.L,msize=524288
$B mount -t 9p -o ro,cache=loose,$OPTIONS root /host || fail "the host's files"
$B mount -t tmpfs -o size=80% tmpfs /written
lay() { # what is in $1, at $2, with changes kept in memory
    upper=/written/$3/upper work=/written/$3/work
    $B mkdir -p $upper $work "$2"
    $B mount -t overlay -o lowerdir="$1",upperdir=$upper,workdir=$work overlay "$2" || fail "the overlay"
}
if [ -d /system ]; then
    $B mount -t 9p -o ro,cache=loose,$OPTIONS system /system || fail "the guest's system"
    lay /system /guest system
    $B mkdir /guest/bytecode && $B mount -t 9p -o cache=loose,$OPTIONS bytecode /guest/bytecode || fail "the folder for bytecode"
    for path in /host/*; do
        name=${path##*/}
        case $name in proc | sys | dev | run | boot | lost+found) continue ;; esac
        [ -e "/system/$name" ] && continue
        if [ -L "$path" ]; then $B cp -P "$path" /guest/; elif [ -d "$path" ]; then lay "$path" "/guest/$name" "$name"; fi
    done
else
    lay /host /guest host
fi
for folder in proc sys dev; do $B mkdir -p /guest/$folder; $B mount --move /$folder /guest/$folder; done
$B mkdir -p /guest/dev/shm /guest/dev/pts /guest/out /guest/root /guest/run /guest/tmp
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
