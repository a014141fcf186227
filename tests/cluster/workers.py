"""Run a Ray cluster on this machine: a head without processors, and two workers.

The argument is the number of processors per worker. The cluster's address is printed. A line on
standard input, 0 or 1, ends that worker as a power cut would; the end of standard input shuts down
the cluster.
"""

import sys

from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    workers = [cluster.add_node(num_cpus=int(sys.argv[1])) for _ in range(2)]
    cluster.wait_for_nodes()
    print(cluster.address, flush=True)
    for line in sys.stdin:
        cluster.remove_node(workers[int(line)], allow_graceful=False)
        print("ended", flush=True)
    cluster.shutdown()
