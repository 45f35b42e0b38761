# The service is neither enabled, started nor restarted: see dist/deb/postinst.
[ -e /etc/seriatim/tls ] || install -d -m 700 /etc/seriatim/tls
[ ! -d /run/systemd/system ] || systemctl daemon-reload || :
if [ "$1" = 1 ]; then
    echo "seriatim: \`seriatim quickstart\` starts a node for a first try; for a service, see seriatim-serve(1) and /usr/share/doc/seriatim/OPERATIONS.md.gz"
elif [ -d /run/systemd/system ] && systemctl --quiet is-active seriatim.service; then
    echo "seriatim: the old version still runs here. Restart one host after the other (systemctl restart seriatim), and wait in between until \`seriatim status --check\` of a client exits with 0"
fi
exit 0
