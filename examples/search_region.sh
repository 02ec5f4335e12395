#!/usr/bin/env bash
# Find a landform in a region of Mars and open the hits in QGIS:
#
#   MODEL=marscope TILES=tiles STORE=mars.store bash examples/search_region.sh "pitted cones" -60,20,0,60
#
# The first run embeds all tiles, so that later searches of any region take seconds. Writes
# pitted_cones.gpkg (extra gis), .csv and a map, .png, into OUT. Without a network, use
# MODEL=mars-nano and TILES from 'marsretrieval data synth --out planet'.
set -euo pipefail

what=${1:?landform, such as "pitted cones"} where=${2:?west,south,east,north in degrees}
: "${TILES:?folder with the tiles}" "${STORE:?folder of the store}"
model=${MODEL:-marscope} count=${COUNT:-200} out=${OUT:-.}
name=${what//[^[:alnum:]]/_}

marsretrieval embed --model "$model" --images "$TILES" --store "$STORE"
mkdir -p "$out"
marsretrieval search --store "$STORE" --model "$model" --text "$what" --bbox="$where" -k "$count" \
  --out "$out/$name.gpkg" --out "$out/$name.csv" --out "$out/$name.png"
