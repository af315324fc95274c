#!/bin/sh
# Opens the disks that a helper machine was given, mounts the system on them below /mnt, runs a command in it, and puts
# everything away. What is on the disks is hostile; this machine is the wall.
#
# bulkhead-rescue [--write] [--tools] [--hold] [--root DEVICE] [--on-host DEVICE]... [COMMAND...]
#
# With --on-host it runs on the user's own host, for a disk of the user's own, in mount and pid namespaces of its own.
set -u
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export PATH DM_DISABLE_UDEV=1 MDADM_NO_UDEV=1
LVM='devices { use_devicesfile=0 } activation { udev_sync=0 udev_rules=0 monitoring=0 } backup { backup=0 archive=0 }'
top=/mnt work=/tmp mode=ro tools='' hold='' root='' host=''

while [ $# -gt 0 ]; do
    case $1 in
        --write) mode=rw ;;
        --tools) tools=1 ;;
        --hold) hold=1 ;;
        --root) root=$2; shift ;;
        --on-host) host="$host $2"; shift ;;
        --) shift; break ;;
        *) break ;;
    esac
    shift
done

say() { printf 'rescue: %s\n' "$*" >&2; }
load() { for module; do [ -n "$host" ] || modprobe -q "$module"; done; }
devices() { lsblk -nrpo NAME $disks 2>/dev/null | sort -u; }
value() { blkid -p -s "$2" -o value "$1" 2>/dev/null; }
lvm_do() { lvm "$@" --config "$LVM" </dev/null; }

tell() {
    # lsblk asks udev for types, which does not run here.
    lsblk -nrpo NAME,SIZE,TYPE $disks | sort -u | while read -r one size type; do
        printf '%-28s %8s %-5s %-18s %s\n' "$one" "$size" "$type" "$(value "$one" TYPE)" "$(value "$one" LABEL | tr -dc '[:print:]')"
    done >&2
}

put_away() {
    trap '' HUP INT TERM
    kill -KILL -1 2>/dev/null   # in this pid namespace there is nobody else's process
    sync
    cd /
    [ -n "${names:-}" ] && { umount "$names" 2>/dev/null; rm -f "$names"; }
    umount -R "$top" 2>/dev/null || umount -R -l "$top" 2>/dev/null
    [ -n "${groups:-}" ] && lvm_do vgchange -an $groups >/dev/null 2>&1
    for name in ${opened:-}; do cryptsetup close "$name"; done
    [ -n "${arrays:-}" ] && mdadm --stop --scan >/dev/null 2>&1
    sync
}

# How a file system is mounted: without its journal where nothing may be written, since it could not be replayed.
options() {
    case $mode:$1 in
        ro:ext3 | ro:ext4) echo ro,noload ;;
        ro:xfs) echo ro,norecovery ;;
        ro:btrfs) echo ro,rescue=nologreplay ;;
        *) echo "$mode" ;;
    esac
}

mount_at() {
    type=$(value "$1" TYPE)
    load "$type"
    mount -t "$type" -o "$(options "$type")" "$1" "$2" 2>"$work/said" || {
        say "$1 ($type) cannot be mounted: $(head -n 1 "$work/said" | sed 's/^mount: //')"
        return 1
    }
}

is_system() { [ -d "$1/etc" ] && { [ -d "$1/usr/bin" ] || [ -d "$1/bin" ]; }; }

open_layers() {
    if [ -n "$host" ]; then
        for one in $(devices); do
            case $(value "$one" TYPE) in linux_raid_member | crypto_LUKS | LVM2_member)
                say "$one is a part of a $(value "$one" TYPE), which is not opened on a host: leave out --on-host" ;;
            esac
        done
        return
    fi
    for one in $(devices); do
        type=$(value "$one" TYPE)
        case $type in
            linux_raid_member | LVM2_member) ;;
            *_member | BitLocker) say "$one is a part of a $type, which the helper's kernel does not open" ;;
        esac
    done
    if devices | while read -r one; do value "$one" TYPE; done | grep -q linux_raid_member; then
        load raid0 raid1 raid10 raid456 linear
        arrays=1
        [ "$mode" = ro ] && set -- --readonly || set --
        mdadm --assemble --scan --run "$@" >/dev/null 2>&1
    fi
    for one in $(devices); do
        [ "$(value "$one" TYPE)" = crypto_LUKS ] || continue
        if [ -t 0 ]; then
            # The kernel asks for ciphers by a modprobe that is not in its own first root.
            load dm-mod dm-crypt aesni-intel aes_generic xts cbc essiv sha256_generic sha512_generic
            name=luks-$(basename "$one")
            [ "$mode" = ro ] && set -- --readonly || set --
            cryptsetup open "$@" "$one" "$name" <&3 && opened="${opened:-} $name"
        else
            say "$one is encrypted (LUKS): a terminal is needed to ask for its passphrase"
        fi
    done
    if devices | while read -r one; do value "$one" TYPE; done | grep -q LVM2_member; then
        load dm-mod dm-snapshot dm-mirror dm-thin-pool
        groups=$(lvm_do vgs --noheadings -o vg_name 2>/dev/null)
        for group in $groups; do
            if [ "$mode" = ro ]; then
                lvm vgchange -ay "$group" --config "$LVM activation { read_only_volume_list = [ \"$group\" ] }"
            else
                lvm_do vgchange -ay "$group"
            fi >/dev/null 2>"$work/said" || say "volume group $group: $(tail -n 1 "$work/said")"
        done
        lvm_do vgmknodes >/dev/null 2>&1
    fi
}

find_root() {
    mkdir -p "$work/look"
    for one in $(devices); do
        type=$(value "$one" TYPE)
        case $type in
            ext2 | ext3 | ext4 | xfs | btrfs) ;;
            '' | swap | vfat | exfat | *_member | crypto_LUKS | BitLocker) continue ;;
            # Whatever else the helper's kernel knows; the host's is not asked to load what it does not need.
            *) [ -z "$host" ] || continue ;;
        esac
        mount_at "$one" "$work/look" || continue
        if is_system "$work/look"; then
            umount "$work/look"
            echo "$one"
            return
        fi
        # Debian and others put a btrfs's root into a subvolume.
        for volume in @rootfs @ root; do
            is_system "$work/look/$volume" && { umount "$work/look"; echo "$one $volume"; return; }
        done
        umount "$work/look"
    done
}

# What else belongs to the system: what its fstab says, as far as that is right, else what looks like it.
mount_others() {
    while read -r what where type rest; do
        case $what in '' | '#'*) continue ;; esac
        case $where in / | none | swap | '' | *..* | /proc* | /sys* | /dev* | /run*) continue ;; /*) ;; *) continue ;; esac
        case $what in
            UUID=* | LABEL=* | PARTUUID=* | PARTLABEL=*) one=$(findfs "$(echo "$what" | tr -d '"')" 2>/dev/null) ;;
            /dev/*) one=$what ;;
            *) continue ;;
        esac
        if [ -z "$one" ] || ! devices | grep -qx "$one"; then
            say "fstab: $what for $where is not on these disks"
        elif [ ! -d "$top$where" ]; then
            say "fstab: $where is no directory"
        elif ! grep -q "^$one " /proc/mounts; then
            mount_at "$one" "$top$where" && say "$one on $where"
        fi
    done <"$top/etc/fstab"
}

mount_boot() {
    for one in $(devices); do
        grep -q "^$one " /proc/mounts && continue
        type=$(value "$one" TYPE)
        case $type in vfat | ext2 | ext3 | ext4 | xfs) ;; *) continue ;; esac
        mount_at "$one" "$work/look" || continue
        where=''
        if [ "$type" = vfat ] && [ -d "$work/look/EFI" ]; then where=/boot/efi
        elif [ -d "$work/look/grub" ] || ls "$work/look"/vmlinuz* >/dev/null 2>&1; then where=/boot
        fi
        umount "$work/look"
        if [ -n "$where" ] && [ -d "$top$where" ] && ! grep -q " $top$where " /proc/mounts; then
            mount_at "$one" "$top$where" && say "$one on $where (by what is in it)"
        fi
    done
}

inside() {
    mount --rbind /dev "$top/dev" && mount -t proc proc "$top/proc" && mount --rbind /sys "$top/sys" &&
        mount -t tmpfs tmpfs "$top/run" || say "its /dev, /proc, /sys or /run is no directory"
    mount -t tmpfs tmpfs "$top/tmp" 2>/dev/null
    chmod 1777 "$top/tmp" 2>/dev/null
    # Names: the file, or what a link in it leads to below /run.
    if [ -L "$top/etc/resolv.conf" ]; then
        chroot "$top" /bin/sh -c 'to=$(readlink -m /etc/resolv.conf) && mkdir -p "${to%/*}" && cat >"$to"' \
            </etc/resolv.conf 2>/dev/null
    else
        [ -e "$top/etc/resolv.conf" ] || [ "$mode$host" != rw ] || { : >"$top/etc/resolv.conf" && names="$top/etc/resolv.conf"; }
        mount --bind /etc/resolv.conf "$top/etc/resolv.conf" 2>/dev/null
    fi
}

run() {
    "$@" <&3 &
    wait $!
    code=$?
    # A signal interrupts wait: then it is this process that is to end.
    return "$code"
}

exec 3<&0
trap put_away EXIT
if [ -n "$host" ]; then
    # In this mount namespace alone. What is mounted below it is hidden, not unmounted.
    mount -t tmpfs tmpfs /mnt || exit 125
    top=/mnt/system work=/mnt/work
    mkdir "$top" "$work"
fi
trap 'exit 143' TERM
trap 'exit 129' HUP
disks=$host
[ -n "$host" ] || for one in /sys/block/vd*; do
    case $(cat "$one/serial" 2>/dev/null) in foreign*) disks="$disks /dev/${one##*/}" ;; esac
done
[ -n "$disks" ] || { say 'no disk was given'; exit 125; }
load nls_cp437 nls_ascii nls_utf8
open_layers
tell
if [ -z "$tools" ]; then
    found=${root:-$(find_root)}
    if [ -z "$found" ]; then
        say 'no system was found on it'
        # A command that was meant for the system must never run beside it.
        [ -z "$hold$host" ] && [ $# -eq 0 ] || exit 125
        say 'here are the tools: fsck, mount, lvm and others are at hand'
        tools=1
    else
        device=${found%% *} volume=${found#* }
        mount_at "$device" "$top" || exit 125
        if [ "$volume" != "$device" ]; then
            umount "$top" && mount -o "$(options btrfs),subvol=$volume" "$device" "$top" || exit 125
        fi
        say "$device on / ($mode)"
        [ -f "$top/etc/fstab" ] && [ ! -L "$top/etc/fstab" ] && mount_others
        mount_boot
    fi
fi
if [ -n "$hold" ]; then
    touch /tmp/ready
    while :; do run sleep 86400; done
fi
if [ -z "$tools" ]; then
    inside
    export HOME=/root debian_chroot=rescue
    if [ $# -eq 0 ]; then
        for shell in /bin/bash /bin/sh; do [ -x "$top$shell" ] && break; done
        chroot "$top" "$shell" -c : 2>/dev/null || {
            [ -z "$host" ] || exit 126
            say "$shell does not run in there: here is a shell of the tools, the system is below $top"
            shell=''
        }
        if [ -n "$shell" ]; then
            [ -t 3 ] && set -- -i || set -- -s
            run chroot "$top" "$shell" "$@"
            exit $?
        fi
    else
        run chroot "$top" "$@"
        exit $?
    fi
fi
if [ $# -eq 0 ]; then
    [ -t 3 ] && set -- /bin/bash -i || set -- /bin/bash -s
fi
run "$@"
exit $?
