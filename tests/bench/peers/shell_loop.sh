#!/bin/sh
# The loop that people write first: inotifywait, curl, mv, rclone. One ZIP at a time; nothing is synced or tried again,
# and what was dropped while it did not run is never seen.
set -eu

export RCLONE_CONFIG_S3_TYPE=s3 RCLONE_CONFIG_S3_PROVIDER=Other RCLONE_CONFIG_S3_ENDPOINT="$ENDPOINT"
export RCLONE_CONFIG_S3_ACCESS_KEY_ID="$AWS_ACCESS_KEY_ID" RCLONE_CONFIG_S3_SECRET_ACCESS_KEY="$AWS_SECRET_ACCESS_KEY"

portal() {
    curl -sS --fail -H "Authorization: Bearer $API_KEY" "$@"
}

# inotifywait says itself, on stderr, when it listens.
inotifywait -m -e close_write -e moved_to --format %f "$OUTBOX" | while read -r name; do
    case $name in *.zip) ;; *) continue ;; esac
    sha256=$(sha256sum "$OUTBOX/$name" | cut -d " " -f 1)
    order=$(portal -H "Idempotency-Key: \"$sha256\"" -F "job_id=${name%_v*}" -F version=1 -F "sha256=$sha256" \
        -F "client_reference=$sha256" -F "meta[trace_id]=$(echo "$sha256" | cut -c 1-32)" \
        -F "package=@$OUTBOX/$name;type=application/zip" "$PORTAL/deliveries" |
        sed -n 's/.*"id": *"\([^"]*\)".*/\1/p')
    mv -n "$OUTBOX/$name" "$SUBMITTED/"
    portal "$PORTAL/deliveries/$order" | grep -q completed
    mv -n "$SUBMITTED/$name" "$DELIVERED/"
    rclone copyto --s3-no-check-bucket "$DELIVERED/$name" "s3:$BUCKET/shell/$name"
    echo "$name"
done
