#!/bin/busybox sh
# The first process of the installer: makes the usual mounts, then hands over to the agent.
export PATH=/usr/sbin:/usr/bin HOME=/root TERM=linux
export PYTHONPATH=/usr/lib/gild PYTHONDONTWRITEBYTECODE=1 PYTHONUTF8=1
/bin/busybox mount -t devtmpfs -o mode=0755,nosuid dev /dev 2>/dev/null
# Without a console (console=ttyS0 on a board that has no serial port) opening it fails; go on without a voice.
if (: </dev/console >/dev/console) 2>/dev/null; then
    exec </dev/console >/dev/console 2>&1
else
    exec </dev/null >/dev/null 2>&1
fi
/bin/busybox mount -t proc -o nosuid,nodev,noexec proc /proc
/bin/busybox mount -t sysfs -o nosuid,nodev,noexec sys /sys
/bin/busybox mkdir -p /dev/pts /run /tmp /mnt
/bin/busybox mount -t devpts -o mode=0620 devpts /dev/pts
/bin/busybox --install -s /usr/bin
ln -sf /proc/mounts /etc/mtab
ip link set lo up

cd /
python3.11 -P -S -s -m netboot.agent
status=$?
if [ "$status" = 0 ]; then
    # The agent reboots or starts the installed kernel itself; one that just ends has nothing more to do here.
    sync
    reboot -f
fi

echo
echo "  ############################################################"
echo "  #                                                          #"
echo "  #   gild: THE INSTALLER STOPPED WITH AN ERROR (see above)  #"
echo "  #                                                          #"
echo "  ############################################################"
echo
echo "  exit status $status. On the head node, 'gild node show NAME' has the whole story of this machine."
case " $(cat /proc/cmdline) " in
*" gild.shell"[=\ ]*)
    echo "  A shell follows, because gild.shell stands on the kernel's command line. 'reboot -f' ends it."
    while :; do
        setsid cttyhack sh || sh
        sleep 1
    done
    ;;
esac
echo "  For a shell here instead, add gild.shell to the head's setting installer_cmdline. Restarting in 60 seconds."
sleep 60
sync
reboot -f
