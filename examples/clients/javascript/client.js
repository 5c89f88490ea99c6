// A client of clipper-stream: asks a query, waits for its prediction, sends feedback, waits for the acknowledgement.
//
//   npm ci && node client.js localhost:9092 sums '[1, 2]' 3

const { randomUUID } = require("node:crypto");
const { Kafka, logLevel } = require("kafkajs");

const [QUERIES, PREDICTIONS] = ["clipper.queries", "clipper.predictions"];
const [FEEDBACK, ACKS] = ["clipper.feedback", "clipper.feedback-acks"];
const WITHIN_MS = 60_000;

/** Values of records by topic and correlation id, handed to whoever waits for them. */
class Answers {
  #waiting = new Map();

  expect(topic, id) {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`nothing on ${topic} within ${WITHIN_MS} ms`)), WITHIN_MS);
      this.#waiting.set(`${topic} ${id}`, (value) => (clearTimeout(timer), resolve(value)));
    });
  }

  take(topic, { headers, value }) {
    this.#waiting.get(`${topic} ${headers["correlation-id"]}`)?.(value.toString());
  }
}

async function main([bootstrap, application, input, label]) {
  const kafka = new Kafka({ brokers: bootstrap.split(","), logLevel: logLevel.ERROR });
  const [admin, producer] = [kafka.admin(), kafka.producer()]; // its default partitioner is that of Java's client
  const consumer = kafka.consumer({ groupId: `clipper-client-${randomUUID()}` }); // kafkajs has no reader without one
  await Promise.all([admin, producer, consumer].map((one) => one.connect()));

  const answers = new Answers();
  await consumer.subscribe({ topics: [PREDICTIONS, ACKS] });
  await consumer.run({ autoCommit: false, eachMessage: async ({ topic, message }) => answers.take(topic, message) });
  for (const topic of [PREDICTIONS, ACKS]) {
    for (const { partition, high } of await admin.fetchTopicOffsets(topic)) {
      consumer.seek({ topic, partition, offset: high }); // so that no answer to a later query is missed
    }
  }

  const id = randomUUID(); // query id, key and correlation id in one; a query with a context has the context as its key
  const exchange = async (topic, content, answerTopic) => {
    const answer = answers.expect(answerTopic, id);
    const value = JSON.stringify({ application, query_id: id, ...content });
    await producer.send({ topic, messages: [{ key: id, value, headers: { "correlation-id": id } }] });
    return answer;
  };
  console.log(await exchange(QUERIES, { input: JSON.parse(input) }, PREDICTIONS));
  console.log(await exchange(FEEDBACK, { label: JSON.parse(label), ack: true }, ACKS));
  await Promise.all([admin, producer, consumer].map((one) => one.disconnect()));
}

if (process.argv.length !== 6) {
  console.error("usage: client.js BOOTSTRAP APPLICATION INPUT LABEL");
  process.exit(2);
}
main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
