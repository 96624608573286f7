#!/bin/bash
# nginx.sh PORT DIR: nginx as one process that answers "Hello, World!". $PEERS_NGINX is the program, and DIR where
# it keeps its files.
set -eu
dir=$2/nginx-$1
mkdir -p "$dir"
temp=$(for kind in client_body proxy fastcgi uwsgi scgi; do echo "${kind}_temp_path $dir/$kind;"; done)
cat >"$dir/nginx.conf" <<END
daemon off;
master_process off;
pid $dir/pid;
error_log stderr;
events { worker_connections 20000; }
http {
    $temp
    access_log off;
    default_type text/plain;
    keepalive_requests 1000000000;
    server {
        listen 127.0.0.1:$1 backlog=4096;
        location / { return 200 "Hello, World!"; }
    }
}
END
exec "${PEERS_NGINX:-nginx}" -p "$dir" -c "$dir/nginx.conf"
