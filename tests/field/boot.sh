#!/bin/sh
# Boots a systemd of its own, in namespaces that `unshare` has made, over the files of this machine,
# or of another Debian: what it writes is in memory. Arguments: a folder to mount things on; / or the
# folder of that Debian; the prefix of a Python, the folder of its packages, and the project's.
# Without the last three it has no relay.
set -e
work=$1 below=$2 python=$3 site=$4 project=$5
mount --make-rprivate /
mount -t tmpfs -o size=512m tmpfs "$work"
mkdir "$work/upper" "$work/work" "$work/root"
mount -t overlay -o "lowerdir=$below,upperdir=$work/upper,workdir=$work/work" overlay "$work/root"
cd "$work/root"

rm -rf opt/derper var/lib/derper etc/default/derper etc/systemd/system/derper.*
install_relay() {
    # Where the unit looks for it, and not below /root, /home or /tmp, which the unit hides.
    mkdir -p opt/derper/bin opt/derper/python opt/derper/site opt/derper/project
    mount --bind "$python" opt/derper/python
    mount --bind "$site" opt/derper/site
    mount --bind "$project" opt/derper/project
    cat >opt/derper/bin/derper <<'END'
#!/bin/sh
export PYTHONHOME=/opt/derper/python LD_LIBRARY_PATH=/opt/derper/python/lib
export PYTHONPATH=/opt/derper/project:/opt/derper/site PYTHONDONTWRITEBYTECODE=1
exec /opt/derper/python/bin/python3 -m derp "$@"
END
    chmod 755 opt/derper/bin/derper
    cp opt/derper/project/deploy/derper.service opt/derper/project/deploy/derper.socket \
        etc/systemd/system/
    grep -q ^derper: etc/passwd || {
        echo 'derper:x:64321:64321::/var/lib/derper:/usr/sbin/nologin' >>etc/passwd
        echo 'derper:x:64321:' >>etc/group
    }
}
[ -z "$python" ] || install_relay

mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
rm -f etc/fstab
# No unit of this machine is started, and none that is for hardware.
rm -rf etc/systemd/system/*.wants etc/systemd/system/*.requires
printf '[Unit]\nRequires=basic.target\nAfter=basic.target\n' >etc/systemd/system/field.target
for unit in systemd-udevd.service systemd-udev-trigger.service systemd-networkd.service \
    systemd-resolved.service systemd-timesyncd.service dev-hugepages.mount dev-mqueue.mount \
    systemd-udevd-kernel.socket systemd-udevd-control.socket systemd-sysusers.service \
    systemd-tmpfiles-setup.service systemd-tmpfiles-setup-dev.service; do
    ln -sf /dev/null "etc/systemd/system/$unit"
done
ip link set lo up
mkdir -p old
pivot_root . old
umount -l old
exec env -i container=podman PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=field.target --log-target=console --show-status=0
