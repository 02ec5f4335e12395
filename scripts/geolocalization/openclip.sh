#!/usr/bin/env bash
exec bash "$(dirname "${BASH_SOURCE[0]}")/../_run.sh" geolocalization pe-core-l-14-336 dfn2b-clip-vit-l-14 vit-l-16-siglip-384 vit-l-16-siglip2-512 -- "$@"
