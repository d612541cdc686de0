#!/bin/sh
# Take a label off this pod, so that no Service selects it any more, or delete it. Runs in the pod. For fence.command:
#   command: [/etc/healthagent/fencing/pod.sh, unlabel, role]
#   command: [/etc/healthagent/fencing/pod.sh, delete]
# Needs curl, a service account that may do it, and from the downward API POD_NAME, POD_NAMESPACE and, to delete, POD_UID:
# see fencing/README.md. GRACE_SECONDS: how long a deleted pod has to shut down (30).
set -u
account=${SERVICE_ACCOUNT:-/var/run/secrets/kubernetes.io/serviceaccount}
seconds=${FENCE_SECONDS:-10} grace=${GRACE_SECONDS:-30} label=${2-}

say() { echo "pod.sh: $*"; }
wrong() { say "$*"; exit 2; }
# What goes into a URL or JSON must be what Kubernetes calls a name.
name() { case $2 in '' | *[!0-9A-Za-z._:/-]*) wrong "$1 must be set, got '$2'" ;; esac; }

name POD_NAME "${POD_NAME-}"
name POD_NAMESPACE "${POD_NAMESPACE-}"
name KUBERNETES_SERVICE_HOST "${KUBERNETES_SERVICE_HOST-}"
case ${1-} in
unlabel)
    name LABEL "$label"
    method=PATCH type=application/merge-patch+json body="{\"metadata\":{\"labels\":{\"$label\":null}}}" done="label $label is off"
    ;;
delete)
    # With the uid in it the request never meets the pod that has come after this one.
    name POD_UID "${POD_UID-}"
    case $grace in *[!0-9]*) wrong "GRACE_SECONDS must be a number, got '$grace'" ;; esac
    method=DELETE type=application/json done="deletion accepted"
    body="{\"kind\":\"DeleteOptions\",\"apiVersion\":\"v1\",\"gracePeriodSeconds\":$grace,\"preconditions\":{\"uid\":\"$POD_UID\"}}"
    ;;
*) wrong "usage: pod.sh unlabel LABEL | delete" ;;
esac

host=$KUBERNETES_SERVICE_HOST
case $host in *:*) host="[$host]" ;; esac
url="https://$host:${KUBERNETES_SERVICE_PORT:-443}/api/v1/namespaces/$POD_NAMESPACE/pods/$POD_NAME"

say "$POD_NAME: ${HEALTHAGENT_REASON:-by hand}: ${HEALTHAGENT_DETAIL:-}"
# The token goes in by standard input: the list of processes shows what stands in the command.
answer=$(printf 'header = "Authorization: Bearer %s"\n' "$(cat "$account/token")" |
    curl --config - --silent --show-error --max-time "$seconds" --cacert "$account/ca.crt" --request "$method" \
        --header "Content-Type: $type" --data "$body" --write-out '\n%{http_code}' "$url" 2>&1)
case $(printf %s "$answer" | tail -n 1) in
2??) say "$done" ;;
*) say "the API server did not do it: $(printf %s "$answer" | tr '\n' ' ' | cut -c 1-500)"; exit 1 ;;
esac
