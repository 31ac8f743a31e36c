#!/usr/bin/env bash
# A real SLURM cluster on one Debian machine, for the tests: as root, without systemd, gone without a trace but its packages.
#   cluster.sh up DIR     install what is missing, start everything with its files in DIR, wait until the nodes are idle
#   cluster.sh down DIR   stop what `up` started there, by its pid files
#   cluster.sh node DIR NAME   start a node again that was lost
# Two nodes claim 8 CPUs and 2 GPUs each, whatever the machine has. Jobs of the partition `low` (the default) are preempted
# and requeued by those of `high`, after 20 seconds of grace. SLURM_CONF=DIR/slurm.conf is all that a client needs.
# ACCOUNTING=1 adds slurmdbd and MariaDB, so that sacct works; the program does without, and so do the tests.
set -euo pipefail
DIR=$2 NODES=2 CPUS=8 MEMORY_MB=10000 GPUS=2 PORT=16800 ACCOUNTING=${ACCOUNTING:-0}
export SLURM_CONF=$DIR/slurm.conf

install() { # the packages whose program is missing
  local missing=() pair
  for pair in slurmctld:slurmctld slurmd:slurmd sinfo:slurm-client munged:munge \
              $([ "$ACCOUNTING" = 1 ] && echo slurmdbd:slurmdbd mariadbd:mariadb-server); do
    command -v "${pair%:*}" >/dev/null || missing+=("${pair#*:}")
  done
  [ ${#missing[@]} -eq 0 ] && return
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >"$DIR/log/apt.log" 2>&1 \
    || { cat "$DIR/log/apt.log" >&2; exit 1; }
}

configure() {
  local node gpu
  dd if=/dev/urandom of="$DIR/munge.key" bs=1024 count=1 status=none
  chmod 400 "$DIR/munge.key"
  cat >"$SLURM_CONF" <<CONF
ClusterName=tests
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmctldPort=$((PORT + 1))
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket
CredType=cred/munge
SlurmctldPidFile=$DIR/run/slurmctld.pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdPidFile=$DIR/run/slurmd.%n.pid
SlurmdLogFile=$DIR/log/slurmd.%n.log
SlurmdSpoolDir=$DIR/spool/%n
StateSaveLocation=$DIR/state
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
# There may be no cgroups: processes are tracked through /proc, and bound to nothing.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=100
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1
ReturnToService=2
SlurmdTimeout=15
JobRequeue=1
KillWait=5
MinJobAge=3600
InactiveLimit=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
# The signal that a job asked for is sent when its grace begins.
SlurmctldParameters=preempt_send_user_signal
GresTypes=gpu
$([ "$ACCOUNTING" = 1 ] && echo "AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=localhost
AccountingStoragePort=$((PORT + 2))
AccountingStoragePass=$DIR/run/munge.socket
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5" || echo "AccountingStorageType=accounting_storage/none")
$(for ((node = 1; node <= NODES; node++)); do
  echo "NodeName=node$node NodeHostname=node$node NodeAddr=127.0.0.1 Port=$((PORT + 10 + node)) CPUs=$CPUS Boards=1" \
    "SocketsPerBoard=1 CoresPerSocket=$CPUS ThreadsPerCore=1 RealMemory=$MEMORY_MB Gres=gpu:$GPUS State=UNKNOWN"
done)
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
CONF
  for ((node = 1; node <= NODES; node++)); do
    for ((gpu = 0; gpu < GPUS; gpu++)); do
      mknod "$DIR/dev/node$node-gpu$gpu" c 1 3 # a twin of /dev/null
    done
    echo "NodeName=node$node Name=gpu File=$DIR/dev/node$node-gpu[0-$((GPUS - 1))]" >>"$DIR/gres.conf"
    echo "127.0.0.1 node$node # slurm tests" >>/etc/hosts # where processes on several nodes meet
  done
}

start_accounting() {
  local database=$DIR/mysql sql=(mariadb --no-defaults -uroot --socket="$DIR/run/mysql/socket")
  mkdir -p "$database" "$DIR/run/mysql"
  chown mysql: "$database" "$DIR/run/mysql"
  mariadb-install-db --no-defaults --user=mysql --datadir="$database" --auth-root-authentication-method=normal \
    --skip-test-db >"$DIR/log/mariadb-install.log" 2>&1
  setsid mariadbd --no-defaults --user=mysql --datadir="$database" --socket="$DIR/run/mysql/socket" \
    --pid-file="$DIR/run/mysql/mariadbd.pid" --bind-address=127.0.0.1 --port=$((PORT + 3)) \
    --innodb-buffer-pool-size=64M --innodb-lock-wait-timeout=900 >"$DIR/log/mariadbd.log" 2>&1 </dev/null &
  until "${sql[@]}" -e 'select 1' >/dev/null 2>&1; do sleep 0.1; done
  "${sql[@]}" -e "create database slurm_acct_db; create user 'slurm'@'127.0.0.1' identified by 'tests';
    grant all on slurm_acct_db.* to 'slurm'@'127.0.0.1';"
  cat >"$DIR/slurmdbd.conf" <<CONF
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.socket
DbdHost=localhost
DbdPort=$((PORT + 2))
SlurmUser=root
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort=$((PORT + 3))
StorageUser=slurm
StoragePass=tests
StorageLoc=slurm_acct_db
CommitDelay=1
CONF
  chmod 600 "$DIR/slurmdbd.conf"
  slurmdbd
  until timeout 5 sacctmgr -n list cluster >/dev/null 2>&1; do sleep 0.1; done
  sacctmgr -i add cluster tests >/dev/null || true
}

up() {
  mkdir -p "$DIR"/{dev,log,run,spool,state}
  chmod 755 "$DIR" "$DIR"/*
  install
  configure
  munged --key-file="$DIR/munge.key" --socket="$DIR/run/munge.socket" --pid-file="$DIR/run/munged.pid" \
    --log-file="$DIR/log/munged.log" --seed-file="$DIR/run/munged.seed"
  [ "$ACCOUNTING" = 1 ] && start_accounting
  slurmctld
  for ((node = 1; node <= NODES; node++)); do
    start_node "node$node"
  done
  for _ in $(seq 300); do
    [ "$(timeout 5 sinfo -h -N -p low -t idle -o %N 2>/dev/null | wc -l)" = "$NODES" ] && return
    sleep 0.1
  done
  tail -n 20 "$DIR"/log/*.log >&2
  exit 1
}

start_node() { # in a hostname of its own, by which it knows its line of slurm.conf
  unshare --uts sh -c 'hostname "$1" && exec slurmd -N "$1"' sh "$1"
}

down() {
  local ended
  timeout 10 scancel --user=root 2>/dev/null || true
  for _ in $(seq 50); do
    [ -z "$(timeout 5 squeue -h 2>/dev/null)" ] && break
    sleep 0.1
  done
  for ended in slurmd slurmctld slurmdbd mariadbd munged; do
    end "$ended" $(find "$DIR/run" -name "$ended*.pid")
  done
  sed '/# slurm tests$/d' /etc/hosts >"$DIR/hosts"
  cat "$DIR/hosts" >/etc/hosts # which in a container is a mount, and cannot be replaced
}

end() { # the processes of this name in these pid files: asked, and after ten seconds killed
  local name=$1 file pid
  shift
  for file; do
    pid=$(cat "$file")
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] || continue
    kill "$pid"
    for _ in $(seq 100); do
      [ -d "/proc/$pid" ] || continue 2
      sleep 0.1
    done
    kill -9 "$pid"
  done
}

case $1 in
  up | down) "$1" ;;
  node) start_node "$3" ;;
  *) sed -n '2,9s/^# //p' "$0" >&2 && exit 2 ;;
esac
