"""The agent: what runs on each instance, from boot to the end of the instance.

Lifecycle: who am I (IMDS) -> what am I to run (configuration) -> have the runner (baked, cached or
downloaded, always verified) -> run one job -> report -> clean up -> end the instance. Whatever goes
wrong on the way, the last step is taken: an instance that stays costs money for nothing.

Start it with ``python -m runsfleet_runtime.agent``; its variables are
:class:`runsfleet_runtime.contract.environment.AgentEnvironment`.

Gotchas:
    * GitHub binds a runner to labels, not to a job: the job that ran may be another than the one
      that the instance was launched for. Only the hooks know.
    * ``run.sh`` answers 0 for nearly everything, so its exit code says nothing of the job.
    * The registration is a secret that belongs in neither argv, logs nor tags; it reaches the
      runner by its environment.

Map: ``lifecycle`` decides, ``agent`` is the use case up to the job's end, ``departure`` what comes
after, ``story`` what is known meanwhile; ``masking``, ``log_batches``, ``log_spool`` and
``log_shipper`` bring the log away; ``ports`` is what all of it needs, the other modules are
adapters named for their technology; ``composition`` joins them.
"""
