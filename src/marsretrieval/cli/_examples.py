"""Command lines at the end of each verb's `--help`. The tests run them, as they do the docs'."""

from __future__ import annotations

EXAMPLES = {
    "": """
marsretrieval demo                                  # all of it, offline
marsretrieval run -m pe-core-l-14-336 -t landform   # benchmark a model
marsretrieval search --store mars.store --text "pitted cones" -o cones.gpkg
""",
    "demo": """
marsretrieval demo
marsretrieval demo --size tiny --out small
""",
    "run": """
marsretrieval run -m mars-nano -t all --data planet
marsretrieval run -m marscope --checkpoint my.pt -t landform --dry-run
marsretrieval run -m my_module:MyEncoder -m pe-core-l-14-336 -t landform
""",
    "tasks": """
marsretrieval tasks
""",
    "doctor": """
marsretrieval doctor
""",
    "models list": """
marsretrieval models
marsretrieval models siglip
""",
    "models check": """
marsretrieval models check mars-nano
marsretrieval models check my_module:MyEncoder --device cpu
""",
    "score paired": """
marsretrieval score paired --images I.npy --texts T.npy
""",
    "score landform": """
marsretrieval score landform --images I.npy --labels L.json --queries Q.npy --json out.json
""",
    "score geolocalization": """
marsretrieval score geolocalization --predictions P.csv --ground-truth G.csv
""",
    "data synth": """
marsretrieval data synth --out planet --size tiny
marsretrieval data synth --out mars --seed 7 --dry-run
""",
    "data download": """
marsretrieval data download landform
marsretrieval data download paired --dry-run
""",
    "data tiles": """
marsretrieval data tiles --bbox 132,-8,140,0 --dry-run   # what a region costs
marsretrieval data tiles quads --out tiles               # files that are here
""",
    "data verify": """
marsretrieval data verify
marsretrieval data verify data -t landform
""",
    "embed": """
marsretrieval embed -m mars-nano --images tiles --store mars.store
marsretrieval embed -m marscope -m pe-core-l-14-336 --images tiles --store stores
marsretrieval embed -m marscope --images tiles --store mars.store --shard 1/8
""",
    "store info": """
marsretrieval store info mars.store
""",
    "store verify": """
marsretrieval store verify mars.store --repair
""",
    "store index": """
marsretrieval store index mars.store
""",
    "store export": """
marsretrieval store export mars.store -o mars.parquet
""",
    "search": """
marsretrieval search --store mars.store --text "pitted cones" -o cones.gpkg
marsretrieval search --store mars.store --image cone1.png --bbox=-60,20,0,60 -o cones.csv
marsretrieval search --store mars.store --like-at=137.4,-4.6 --merge-deg 0.5 -k 50
""",
    "report": """
marsretrieval report results
marsretrieval report results -o report.html
marsretrieval report results --details --latex
""",
    "compare": """
marsretrieval compare pe-core-l-14-336 marscope
marsretrieval compare A B -t landform
""",
    "export mteb": """
marsretrieval export mteb results/marscope/paired-image-text.json -o mteb
""",
    "export hf": """
marsretrieval export hf results/marscope -o marscope.yaml
""",
}
