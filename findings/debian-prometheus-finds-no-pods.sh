#!/usr/bin/env bash
# Package:  Debian 12's prometheus=2.42.0+ds-5+deb12u1
# Expected: `kubernetes_sd_configs` of a configuration is taken, as by the release 2.42.0 that the package is made from.
#           Source: Prometheus 2.42's documentation, "Configuration", <kubernetes_sd_config>. The package's description
#           names no mechanism of service discovery that is missing.
# Seen:     the package is built without it: promtool and the server refuse the configuration ("field
#           kubernetes_sd_configs not found in type config.ScrapeConfig"). `file_sd_configs` works.
# Here:     tools/demo/assistant_demo/monitoring.py writes the pods into a file for `file_sd_configs`; docs/sre.md says
#           that its configuration with Kubernetes discovery needs an upstream build.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
apt-get -qq -o APT::Sandbox::User=root download prometheus=2.42.0+ds-5+deb12u1
dpkg -x prometheus_*.deb .

check() {
    printf 'scrape_configs:\n  - job_name: pods\n    %s\n' "$1" >prometheus.yml
    if usr/bin/promtool check config prometheus.yml >output 2>&1; then echo taken; else
        grep -o 'field kubernetes_sd_configs not found' output || cat output
    fi
}

kubernetes=$(check 'kubernetes_sd_configs: [{role: pod}]')
file=$(check 'file_sd_configs: [{files: [targets.json]}]')
usr/bin/promtool --version 2>&1 | head -1
echo "Expected: kubernetes_sd_configs taken, file_sd_configs taken."
echo "Seen:     kubernetes_sd_configs: $kubernetes; file_sd_configs: $file."
[ "$kubernetes" = 'field kubernetes_sd_configs not found' ] && [ "$file" = taken ] || {
    echo "changed: kubernetes_sd_configs is $kubernetes, file_sd_configs is $file"
    exit 1
}
