#!/bin/sh
# Loads contact groups into a campaign, waits for the load, sends the campaign.
# Usage: campaign.sh CAMPAIGN GROUPS
# Needs curl 7.76 or newer, jq, and the API key in the file mobizon_key.
set -eu
campaign=$1 groups=$2
api=${MOBIZON_API:-https://api.mobizon.kz} exporter=${EXPORTER:-http://localhost:10117}
pause=${PAUSE:-10} tries=${TRIES:-30} deadline=$(($(date +%s) + ${PATIENCE:-14400}))
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

fail() {
  echo "campaign $campaign is not sent: $*" >&2
  exit 1
}

# mobizon METHOD CURL_ARGUMENTS...: passes the key on stdin, because other users can see arguments.
mobizon() {
  method=$1
  shift
  printf 'url = "%s/service/%s?output=json&api=v1&apiKey=%s"\n' "$api" "$method" "$(cat mobizon_key)" |
    curl -K - --silent --show-error --fail --max-time 60 --output "$answer" "$@"
}

mobizon campaign/addRecipients --data "id=$campaign" --data-urlencode "recipientGroups=$groups" ||
  fail "Mobizon does not answer"
id=$(jq -e 'select(.code == 100) | .data | tonumber' "$answer") || fail "no load was started: $(cat "$answer")"

# curl itself retries where that may help, and honours Retry-After.
curl --request PUT --header 'Content-Type: application/json' --data "{\"name\": \"campaign-$campaign\"}" \
  --retry "$tries" --retry-delay "$pause" --retry-connrefused --max-time 60 \
  --silent --show-error --fail-with-body --output "$answer" "$exporter/api/v1/tasks/$id" ||
  fail "task $id is not registered: $(cat "$answer")"

failures=0
while :; do
  status=$(curl --silent --fail-with-body --max-time 60 --output "$answer" --write-out '%{http_code}' \
    "$exporter/api/v1/tasks/$id/wait") && break
  case $status in
  504)
    failures=0
    [ "$(date +%s)" -lt "$deadline" ] || fail "task $id is not finished: $(cat "$answer")"
    ;;
  000 | 429 | 5??)
    failures=$((failures + 1))
    [ "$failures" -lt "$tries" ] || fail "the exporter does not answer; task $id goes on"
    sleep "$pause"
    ;;
  409)
    curl --request DELETE --silent --show-error --max-time 60 "$exporter/api/v1/tasks/$id" || :
    fail "task $id is rejected"
    ;;
  *) fail "task $id: $(cat "$answer")" ;;
  esac
done

mobizon campaign/send --data "id=$campaign" || fail "Mobizon does not answer; look whether it is sent after all"
jq -e '.code == 0' "$answer" >/dev/null || fail "$(cat "$answer")"
echo "campaign $campaign is sent"
