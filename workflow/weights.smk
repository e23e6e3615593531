# Weights of a corpus that is too large for one machine: shards of its prompts in parallel, then one table.
#
#     snakemake --snakefile workflow/weights.smk --cores 8 --config source=stories.parquet out=weights.parquet shards=64
#
# On a cluster, add an executor, such as `--executor slurm --jobs 64`. `options` is passed to `ddpo weights`.

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
        [source] if Path(source).exists() else [], # a data set of the hub is not a file
    output:
        temp(f"{out}.shards/{{k}}-of-{shards}.parquet"),
    params:
        options=options,
    shell:
        "{sys.executable} -m ddpo_lib.cli weights {source:q} {output:q} --shard {wildcards.k}/{shards} {params.options}"
