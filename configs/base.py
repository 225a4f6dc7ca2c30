"""Every field of a run, its default and its unit; the studies in this folder change some of them.

python train.py --config=configs/base.py --workdir=runs/base --config.encoding.name=alibi
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(
    dict(
      seed=0,  # of parameters and data order
      seeds=(),  # several: as many runs, in the directories WORKDIR,seed=N; (): one run, of `seed`
      # in one program (else one after another); on a CPU it pays for very small models only
      vmap_seeds=False,
      label='',  # how tables name the run; '': the encoding's name
      # a name in posenc_jax.encodings.ENCODINGS, and its hyperparameters beside it
      encoding=dict(name='rope'),
      model=dict(
        layers=4,
        model_dim=128,
        heads=4,
        kv_heads=0,  # key/value heads; 0: as many as heads
        head_dim=32,
        mlp_dim=512,
        # of encoding parameters over layers: 'paper' as published, 'all' one set, 'none'
        share_encoding='paper',
        qk_norm=False,  # RMSNorm of queries and keys before the encoding acts on them
        tie_embeddings=True,  # output projection = token embedding
        logit_softcap=0.0,  # c * tanh(logits / c); 0: off
        # whether the backward pass computes each layer again, which takes less memory and more time
        remat=False,
        unroll=0,  # layers unrolled per step of the scan over layers; 0: all
      ),
      attention=dict(
        backend='auto',  # a name in posenc_jax.attention.BACKENDS, or 'auto'
        window=0,  # tokens a query sees, itself included; 0: all
        block_sizes=(0, 0),  # query rows, key columns of a block; (0, 0): the backend's choice
      ),
      data=dict(
        # 'sotu', 'tfds:NAME[/CONFIG][:VERSION]', a folder of .txt / .jsonl files, or
        corpus='sotu',
        # 'task:NAME[/option=value...]' with a name in posenc_jax.tasks.TASKS; its evaluation
        # protocol is 'answers'
        # task: tokens of the shortest examples trained on, train.length of the longest; 0: of the
        # task
        shortest=0,
        tokenizer='bytes',  # of text: 'bytes' or 'sentencepiece', learned from the training split
        vocab=4096,  # sentencepiece: symbols, BOS included
        text_field='text',  # where a TFDS example or a jsonl line holds its text
        cache='',  # folder of prepared corpora; '': posenc_jax in the user's cache folder
      ),
      train=dict(
        length=128,  # tokens a sequence: the training length L
        batch=32,  # sequences a step
        # parts that a step's batch is cut into: their gradients are added up one after another
        grad_accum_steps=1,
        steps=600,  # updates; 0, only with init_from: the run is evaluated as it starts
        # directory of a finished run whose parameters this one starts from; '': a draw by the seed
        init_from='',
        # of activations: 'float32' or 'bfloat16'; parameters and optimizer are float32
        compute_dtype='float32',
        # jax_default_matmul_precision while training; evaluation runs at 'highest'
        matmul_precision='default',
        log_every=20,  # steps
        validate_every=200,  # steps; 0: only at the end
        validate_batches=8,  # of train.batch sequences of the validation split
        checkpoint_every=500,  # steps; the last step is always saved
        # checkpoints kept; the last one damaged, its run begins anew once you have removed it
        max_to_keep=1,
        # updates left out where loss or gradient norm is NaN or infinite; at the next one: stop
        max_nonfinite_updates=0,
        # of 'tensorboard', 'wandb': who gets metrics and timing too, as installed by the extra
        # 'logging'
        trackers=(),
        # (N, M): steps N to M are traced by jax.profiler into the folder `profile` of the run; ():
        # none
        profile_steps=(),
      ),
      # devices: their number is the product; what is computed does not depend on it, but for
      # rounding
      mesh=dict(
        # several processes that train as one: all of their devices must be in it
        seeds=1,  # config.seeds, at once, are cut into so many
        data=1,  # and batches into so many
        # and again so many; parameters and the optimizer's state lie in so many pieces, too
        fsdp=1,
        context=1,  # sequences are cut into so many
      ),
      optim=dict(
        learning_rate=3e-3,  # peak
        warmup=50,  # steps, linear from 0
        final_fraction=0.1,  # of the peak, where the cosine ends
        beta1=0.9,
        beta2=0.95,
        weight_decay=0.0,  # decoupled, on matrices only
        clip=1.0,  # global gradient norm; 0: off
      ),
      eval=dict(
        split='test',
        protocols=(
          'last_k',
          'non_overlapping',
        ),  # of last_k, non_overlapping, sliding, by_position, receptive_field
        lengths=(128, 256, 512, 1024, 2048),  # tokens a window
        k=64,  # last_k: target tokens at the end of each window
        stride=64,  # sliding: tokens from one window's end to the next one's
        controls=(
          'windowed',
          # again: attention 'windowed' at train.length (last_k, by_position), 'shuffled_far'
          # (last_k)
        ),
        documents=40,  # the first so many documents of at least max(lengths) tokens; 0: all
        spans=1,  # last_k, receptive_field: targets a document, spread evenly
        examples=220,  # answers: of a task, the same at every run
        # non_overlapping, sliding, by_position: tokens of each document, from its start; 0: all
        document_tokens=2048,
        batch_tokens=8192,  # tokens a forward pass; changes no number
      ),
      # what each run asks SLURM for (scripts/sweep.py --launcher=slurm); changes no number
      launch=dict(
        partition='',  # '': the cluster's default, as for `account`
        account='',
        minutes=1440,  # then it saves its state and queues again
        nodes=1,  # that a training is spread over; `mesh` says how
        # processes of it on each node; with GPUs and more than one process: one for each
        tasks_per_node=1,
        cpus=4,  # of each process
        gpus=0,  # of each node, as for `memory_gb`
        memory_gb=16,
        max_concurrent=0,  # runs of one job array side by side; 0: all
        setup=(),  # shell lines before it starts, such as 'module load cuda'
        options=(),  # of sbatch, beside these, such as 'qos=high'
      ),
    )
  )
