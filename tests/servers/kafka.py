"""Apache Kafka, KRaft nodes, from the Maven artifacts that tools/fetch_kafka.sh copies into .cache/kafka."""

import itertools
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.servers.missing import missing
from tests.servers.ports import POLL_S, free_port, stop_process, wait_until

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "kafka"
INSTALL = "apt-get install maven openjdk-17-jre-headless, then `make tools` (or tools/fetch_kafka.sh)"
OLDEST_JAVA = 17
READ_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 5.0
LEADER_BEGINS = frozenset({KafkaError.NOT_LEADER_FOR_PARTITION, KafkaError.LEADER_NOT_AVAILABLE})
"""What a broker says that has just begun, and hasn't heard yet what it leads."""

PROPERTIES = """\
process.roles=broker,controller
node.id=1
listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}{more_listeners}
advertised.listeners=PLAINTEXT://127.0.0.1:{port}{more_advertised}
controller.listener.names=CONTROLLER
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PROXIED:PLAINTEXT{more_protocols}
controller.quorum.bootstrap.servers=127.0.0.1:{controller}
log.dirs={log_dir}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
group.initial.rebalance.delay.ms=0
auto.create.topics.enable=false
"""

LOGGING = """\
Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d %p %m (%c)%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: [{ref: out}]}
"""

_numbers = itertools.count(1)


def libraries() -> Path:
    """The directory of Kafka's jars; skips the test where they or Java are missing."""
    if not (CACHE / "pom.xml").exists():
        missing("Apache Kafka", INSTALL)
    java = shutil.which("java")
    if java is None:
        missing("Java", INSTALL)
    text = subprocess.run([java, "-version"], capture_output=True, text=True, check=True).stderr
    version = re.search(r'version "(\d+)', text)
    if version is None or int(version[1]) < OLDEST_JAVA:
        missing(f"Java {OLDEST_JAVA} or newer", INSTALL)
    return CACHE / "libs"


class KafkaNode:
    """One process of Kafka, broker and controller; its directory holds its configuration, log and data."""

    def __init__(self, directory: Path, port: int) -> None:
        self._libs = libraries()
        self._directory = directory
        self._config = directory / "server.properties"
        self.port = port
        self.address = f"127.0.0.1:{port}"
        self.process: subprocess.Popen[bytes] | None = None

    def format(self, properties: str, *how: str, cluster: str) -> None:
        """Write the configuration and an empty log directory."""
        self._config.write_text(properties)
        (self._directory / "log4j2.yaml").write_text(LOGGING)
        self.java("kafka.tools.StorageTool", "format", *how, "-t", cluster, "-c", str(self._config))

    def launch(self) -> None:
        """Start the process, without waiting until it answers."""
        with self._log.open("ab") as out:
            self.process = subprocess.Popen(
                self._command("kafka.Kafka", str(self._config)), stdout=out, stderr=subprocess.STDOUT
            )

    def wait(self) -> None:
        """Wait until the broker answers (about 4 s after its launch)."""
        assert self.process is not None
        wait_until(self._answers, self.process, self._log)

    def stop(self) -> None:
        """Stop the broker by its process id."""
        if self.process is not None:
            stop_process(self.process)

    def kill(self) -> None:
        """kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    @property
    def _log(self) -> Path:
        return self._directory / "broker.log"

    def _answers(self) -> bool:
        # One client asks until it is answered: a cold broker on a busy machine takes seconds for its first answer.
        settings = {"bootstrap.servers": self.address, "log_level": 0, "reconnect.backoff.max.ms": 200}
        try:
            brokers = AdminClient(settings).list_topics(timeout=ANSWER_TIMEOUT_S).brokers
        except KafkaException:
            return False
        return any(broker.port == self.port for broker in brokers.values())

    def _command(self, *arguments: str) -> list[str]:
        flags = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        logging = f"-Dlog4j2.configurationFile={self._directory / 'log4j2.yaml'}"
        return ["java", *flags, logging, "-cp", f"{self._libs}/*", *arguments]

    def java(self, *arguments: str) -> str:
        """What one of Kafka's own tools writes."""
        done = subprocess.run(self._command(*arguments), capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def new_cluster_id(self) -> str:
        """An id for `format`; all nodes of a cluster have the same."""
        return self.java("kafka.tools.StorageTool", "random-uuid").strip().splitlines()[-1]


class Kafka:
    """What tests do with a Kafka at an address; names of topics are unique within the session, so tests never meet."""

    def __init__(self, address: str) -> None:
        self.address = address

    def admin(self) -> AdminClient:
        """A client for topics and groups."""
        return AdminClient({"bootstrap.servers": self.address, "log_level": 0})

    def unique(self, prefix: str) -> str:
        """A name that nothing else in this session has, for topics, groups and app ids."""
        return f"{prefix}-{os.getpid()}-{next(_numbers)}"

    def create_topic(self, name: str, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic of exactly this name; gives the name."""
        topic = NewTopic(name, num_partitions=partitions, replication_factor=1, config=dict(config or {}))
        admin = self.admin()  # named: its futures fail once it is collected
        for created in admin.create_topics([topic], operation_timeout=READ_TIMEOUT_S).values():
            created.result(READ_TIMEOUT_S)
        self._wait_for_leaders(name)
        return name

    def _wait_for_leaders(self, topic: str) -> None:
        """The controller answers before the broker leads all partitions."""
        deadline = time.monotonic() + READ_TIMEOUT_S
        while True:
            try:
                self.ends(topic)
            except KafkaException:
                if time.monotonic() > deadline:
                    raise
                time.sleep(POLL_S)
            else:
                return

    def new_topic(self, prefix: str = "topic", partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        """Create a topic with a unique name; gives the name."""
        return self.create_topic(self.unique(prefix), partitions, config)

    def spans_topic(self, partitions: int = 4, prefix: str = "spans") -> str:
        """Create a topic with the broker's timestamps, as `[spans]` needs them; gives the name."""
        return self.new_topic(prefix, partitions, {"message.timestamp.type": "LogAppendTime"})

    def produce(
        self,
        topic: str,
        value: bytes,
        *,
        partition: int = 0,
        key: bytes | None = None,
        headers: Sequence[tuple[str, bytes]] = (),
        timestamp_ms: int = 0,
    ) -> None:
        """Write one record and wait for its acknowledgement."""
        failures: list[object] = []
        producer = Producer({"bootstrap.servers": self.address, "acks": "all", "linger.ms": 0, "log_level": 0})
        producer.produce(
            topic,
            value,
            key,
            partition,
            on_delivery=lambda error, _: failures.append(error),
            headers=list(headers),
            timestamp=timestamp_ms,
        )
        assert producer.flush(READ_TIMEOUT_S) == 0
        assert failures == [None], failures

    def delete_records(self, topic: str, before: Mapping[int, int]) -> None:
        """Take the records before an offset out of partitions, as retention does it."""
        wanted = [TopicPartition(topic, partition, offset) for partition, offset in before.items()]
        admin = self.admin()
        for deleted in admin.delete_records(wanted, operation_timeout=READ_TIMEOUT_S).values():
            deleted.result(READ_TIMEOUT_S)

    def ends(self, topic: str) -> dict[int, int]:
        """The next offset of each partition."""
        consumer = self._reader()
        try:
            partitions = consumer.list_topics(topic, timeout=READ_TIMEOUT_S).topics[topic].partitions
            return {p: end_of(consumer, TopicPartition(topic, p)) for p in sorted(partitions)}
        finally:
            consumer.close()

    def read(self, topic: str) -> list[Message]:
        """All records that the topic holds now, by partition and offset."""
        return sorted(self.every(topic), key=lambda message: (message.partition(), message.offset()))

    def every(self, topic: str) -> Iterator[Message]:
        """The records that the topic holds now, those of a partition in their order."""
        ends = {p: end for p, end in self.ends(topic).items() if end}
        consumer = self._reader()
        try:
            consumer.assign([TopicPartition(topic, p, 0) for p in ends])
            while ends:
                for message in consumer.consume(500, timeout=0.2):
                    if message.error() is not None:
                        raise KafkaException(message.error())
                    yield message
                for position in consumer.position([TopicPartition(topic, p) for p in ends]):
                    if position.offset >= ends[position.partition]:
                        del ends[position.partition]
        finally:
            consumer.close()

    def committed(self, group: str, topic: str) -> dict[int, int]:
        """The group's committed offsets, of the partitions that have one."""
        consumer = self._reader(group)
        try:
            partitions = consumer.list_topics(topic, timeout=READ_TIMEOUT_S).topics[topic].partitions
            found = consumer.committed([TopicPartition(topic, p) for p in partitions], timeout=READ_TIMEOUT_S)
            return {each.partition: each.offset for each in found if each.offset >= 0}
        finally:
            consumer.close()

    def _reader(self, group: str = "tests") -> Consumer:
        return Consumer(
            {
                "bootstrap.servers": self.address,
                "group.id": group,
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "log_level": 0,
            }
        )


def end_of(consumer: Consumer, partition: TopicPartition) -> int:
    """The next offset of a partition, as soon as it has a leader."""
    deadline = time.monotonic() + READ_TIMEOUT_S
    while True:
        try:
            return consumer.get_watermark_offsets(partition, timeout=READ_TIMEOUT_S)[1]
        except KafkaException as exception:
            if exception.args[0].code() not in LEADER_BEGINS or time.monotonic() > deadline:
                raise
        time.sleep(POLL_S)


class KafkaBroker(Kafka):
    """A Kafka of one running broker."""

    def __init__(self, directory: Path, proxy_port: int | None = None) -> None:
        """Clients that come through a proxy to `behind_proxy` are told to stay with the proxy's port."""
        self._directory = directory
        self._proxy_port = proxy_port
        self.behind_proxy = free_port()
        self._node = KafkaNode(directory, free_port())
        self.port = self._node.port
        super().__init__(self._node.address)

    def format(self, listeners: Mapping[str, tuple[int, str]] = MappingProxyType({}), properties: str = "") -> None:
        """Write the configuration and an empty log directory. More listeners: name to port and security protocol."""
        proxied = self._proxy_port is not None
        more = "".join(f",{name}://127.0.0.1:{port}" for name, (port, _) in listeners.items())
        text = PROPERTIES.format(
            port=self.port,
            controller=free_port(),
            more_listeners=more + (f",PROXIED://127.0.0.1:{self.behind_proxy}" if proxied else ""),
            more_advertised=more + (f",PROXIED://127.0.0.1:{self._proxy_port}" if proxied else ""),
            more_protocols="".join(f",{name}:{protocol}" for name, (_, protocol) in listeners.items()),
            log_dir=self._directory / "data",
        )
        self._node.format(text + properties, "--standalone", cluster=self._node.new_cluster_id())

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._node.process is not None
        return self._node.process.pid

    def start(self) -> None:
        """Start the broker (about 4 s); after `stop` again, on the same port and with the same data."""
        self._node.launch()
        self._node.wait()

    def stop(self) -> None:
        """Stop the broker by its process id."""
        self._node.stop()

    def kill(self) -> None:
        """kill -9."""
        self._node.kill()
