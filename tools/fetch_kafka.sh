#!/bin/sh
# Fetches Apache Kafka's jars for the tests into .cache/kafka (54 MB, about 10 s); does nothing if they are there.
# Needs Maven and Java 17 or newer: apt-get install maven openjdk-17-jre-headless
set -eu
cd "$(dirname "$0")/.."
target=.cache/kafka
stamp="$target/pom.xml" # written last: the jars of exactly this list are complete
if cmp -s tests/servers/pom.xml "$stamp"; then
    exit 0
fi
command -v mvn >/dev/null || { echo "fetch_kafka: mvn is missing: apt-get install maven openjdk-17-jre-headless" >&2; exit 1; }
mkdir -p .cache
fresh=$(mktemp -d .cache/kafka.XXXXXX)
trap 'rm -rf "$fresh"' EXIT
mvn -q -B -f tests/servers/pom.xml dependency:copy-dependencies -DincludeScope=runtime "-DoutputDirectory=$PWD/$fresh/libs"
cp tests/servers/pom.xml "$fresh/pom.xml"
rm -rf "$target"
mv "$fresh" "$target"
