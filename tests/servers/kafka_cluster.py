"""Three brokers of Apache Kafka with everything replicated, and what may happen to one of them."""

from pathlib import Path

from confluent_kafka import ElectionType, TopicPartition

from tests.servers.kafka import Kafka, KafkaNode
from tests.servers.ports import free_port

NODES = 3

PROPERTIES = """\
process.roles=broker,controller
node.id={node}
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.voters={voters}
log.dirs={log_dir}
default.replication.factor=3
offsets.topic.replication.factor=3
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
auto.leader.rebalance.enable=false
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=1000
"""


class KafkaCluster(Kafka):
    """Three nodes, each broker and controller; topics have three replicas unless told otherwise."""

    def __init__(self, directory: Path) -> None:
        self.nodes: list[KafkaNode] = []
        self._controllers = [free_port() for _ in range(NODES)]
        self._directory = directory
        for number in range(NODES):
            home = directory / f"node-{number + 1}"
            home.mkdir(parents=True)
            self.nodes.append(KafkaNode(home, free_port()))
        super().__init__(",".join(node.address for node in self.nodes))

    def format(self) -> None:
        """Write the configurations and empty log directories."""
        voters = ",".join(f"{number}@127.0.0.1:{port}" for number, port in enumerate(self._controllers, 1))
        cluster = self.nodes[0].new_cluster_id()
        for number, (node, controller) in enumerate(zip(self.nodes, self._controllers, strict=True), 1):
            log_dir = self._directory / f"node-{number}" / "data"
            text = PROPERTIES.format(node=number, port=node.port, controller=controller, voters=voters, log_dir=log_dir)
            node.format(text, cluster=cluster)

    def start(self) -> None:
        """Start all brokers (about 8 s)."""
        for node in self.nodes:
            node.launch()
        for node in self.nodes:
            node.wait()

    def stop(self) -> None:
        """Stop all brokers, by their process ids."""
        for node in self.nodes:
            if node.process is not None:
                node.process.terminate()
        for node in self.nodes:
            node.stop()

    def restart(self, number: int) -> None:
        """Stop one broker as an operator does, start it again, wait until it answers."""
        self.nodes[number].stop()
        self.nodes[number].launch()
        self.nodes[number].wait()

    def leaders(self, topic: str) -> dict[int, int]:
        """The number of the node that leads each partition of a topic, -1: none."""
        admin = self.admin()
        partitions = admin.list_topics(topic, timeout=10).topics[topic].partitions
        return {partition: found.leader for partition, found in partitions.items()}

    def elect_preferred(self, topic: str) -> None:
        """Give a topic's partitions back to the replicas that are named first: a change of leaders without a death."""
        wanted = [TopicPartition(topic, partition) for partition in self.leaders(topic)]
        admin = self.admin()  # named: its futures fail once it is collected
        admin.elect_leaders(ElectionType.PREFERRED, wanted).result(30)

    def in_sync(self, topics: list[str]) -> bool:
        """Whether every replica of the topics is in sync: what another broker's death must wait for."""
        admin = self.admin()
        known = admin.list_topics(timeout=10).topics
        return all(
            len(partition.isrs) == len(partition.replicas)
            for topic in topics
            for partition in known[topic].partitions.values()
        )
