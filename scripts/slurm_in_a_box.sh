#!/bin/bash
# Starts a SLURM cluster of one node on this machine while one command runs: a way to try a sweep's
# --launcher=slurm without a cluster. On Debian or Ubuntu, once: apt-get install slurm-wlm munge
#
#   scripts/slurm_in_a_box.sh python scripts/sweep.py --config=configs/quick.py --launcher=slurm \
#     --config.launch.cpus=1 --config.launch.memory_gb=2
#
# A job that asks for more than the node has is refused: by default a run wants 4 CPUs and 16 GB.
# It starts its own daemons. Their keys, logs and sockets lie in a new folder, which it removes at
# the end, so it needs no root and touches no other cluster. Jobs run as the user who starts it.
# SLURM_BOX_CPUS (default: all) and SLURM_BOX_MB (default: three quarters of the memory) set the
# size of the node. The exit code is the command's.
set -euo pipefail

[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }
PATH=$PATH:/usr/sbin:/sbin
for program in munged slurmctld slurmd sbatch; do
  command -v $program > /dev/null || {
    echo "$0: no $program; allowed: after apt-get install slurm-wlm munge" >&2
    exit 2
  }
done

box=$(mktemp -d /tmp/slurm_box.XXXXXX)
# before anything may end: `stop` cancels jobs, and without it those of another cluster
export SLURM_CONF=$box/slurm.conf
host=$(hostname -s)
user=$(id -un)
cpus=${SLURM_BOX_CPUS:-$(nproc)}
megabytes=${SLURM_BOX_MB:-$(awk '/^MemTotal/ {print int($2 * 3 / 4096)}' /proc/meminfo)}
read -r ctld_port slurmd_port < <(python3 - <<'PYTHON'
import socket
sockets = [socket.create_server(('127.0.0.1', 0)) for _ in range(2)]
print(*(s.getsockname()[1] for s in sockets))
PYTHON
)

stop() {
  trap - EXIT
  scancel --user="$user" 2> /dev/null || true
  for _ in $(seq 50); do [ -z "$(squeue --noheader 2> /dev/null)" ] && break; sleep 0.2; done
  for daemon in slurmd slurmctld munged; do
    [ -s "$box/$daemon.pid" ] && kill "$(cat "$box/$daemon.pid")" 2> /dev/null || true
  done
  for _ in $(seq 50); do
    alive=no
    for daemon in slurmd slurmctld munged; do
      [ -s "$box/$daemon.pid" ] && kill -0 "$(cat "$box/$daemon.pid")" 2> /dev/null && alive=yes
    done
    [ $alive = no ] && break
    sleep 0.2
  done
  rm -rf "$box"
}
trap stop EXIT
trap 'exit 130' INT TERM HUP

chmod 755 "$box"
mkdir "$box/state" "$box/spool"
(umask 077; head -c 1024 /dev/urandom > "$box/munge.key")
munged --force --key-file="$box/munge.key" --socket="$box/munge.socket" \
  --pid-file="$box/munged.pid" --log-file="$box/munged.log" --seed-file="$box/munge.seed"

cat > "$SLURM_CONF" <<CONF
ClusterName=box
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$ctld_port
SlurmdPort=$slurmd_port
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$box/munge.socket,cred_expire=8
CredType=cred/munge
StateSaveLocation=$box/state
SlurmdSpoolDir=$box/spool
SlurmctldPidFile=$box/slurmctld.pid
SlurmdPidFile=$box/slurmd.pid
SlurmctldLogFile=$box/slurmctld.log
SlurmdLogFile=$box/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=8
SchedulerParameters=sched_interval=1,batch_sched_delay=1
NodeName=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$megabytes State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
echo 'CgroupPlugin=disabled' > "$box/cgroup.conf"
slurmctld -f "$SLURM_CONF"
slurmd -f "$SLURM_CONF" -N "$host"

for _ in $(seq 100); do
  [ "$(sinfo --noheader --format=%T 2> /dev/null)" = idle ] && break
  sleep 0.2
done
if [ "$(sinfo --noheader --format=%T 2> /dev/null)" != idle ]; then
  echo "$0: the node did not come up:" >&2
  tail -n 5 "$box"/*.log >&2
  exit 1
fi
code=0
"$@" || code=$?
exit $code
