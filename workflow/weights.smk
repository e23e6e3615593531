# Weights of a corpus that is too large for one machine: each shard of its prompts by itself, side by side, then one table.
#
#     snakemake --snakefile workflow/weights.smk --cores 8 --config source=stories.parquet out=weights.parquet shards=64
#
# On a cluster add an executor, as in `--executor slurm --jobs 64`. `options` is handed to `ddpo weights`.

import sys
from pathlib import Path

source, out, shards = config["source"], config["out"], int(config["shards"])
options = config.get("options", "")


rule whole:
    input:
        [f"{out}.shards/{k}-of-{shards}.parquet" for k in range(1, shards + 1)],
    output:
        out,
    shell:
        "{sys.executable} -m ddpo_lib.cli merge {output:q} {input:q}"


rule shard:
    input:
        [source] if Path(source).exists() else [], # a data set of the hub is no file
    output:
        temp(f"{out}.shards/{{k}}-of-{shards}.parquet"),
    params:
        options=options,
    shell:
        "{sys.executable} -m ddpo_lib.cli weights {source:q} {output:q} --shard {wildcards.k}/{shards} {params.options}"
