# 0: the package is removed, not upgraded.
if [ "$1" = 0 ] && [ -d /run/systemd/system ]; then
    systemctl --quiet disable --now seriatim.service || :
fi
exit 0
