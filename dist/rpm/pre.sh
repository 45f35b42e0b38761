# Creates the user before its files are installed. Newer versions of rpm do the same with
# /usr/lib/sysusers.d/seriatim.conf.
getent group seriatim >/dev/null || groupadd --system seriatim
getent passwd seriatim >/dev/null ||
    useradd --system --gid seriatim --home-dir /var/lib/seriatim --no-create-home \
        --shell /sbin/nologin --comment Seriatim seriatim
exit 0
