// Sends events over the queue, with a Celery client from npm: npm install celery-node
// Run it with HOLDFIRE_BROKER_URL set: node enqueue.mjs
import celery from "celery-node";

const broker = process.env.HOLDFIRE_BROKER_URL;
const client = celery.createClient(broker, broker, "holdfire.events");

const order = (number) => ({
  version: 1,
  type: "conversion",
  event_id: `node:order:${number}`,
  source: "node-shop",
  name: "purchase",
  occurred_at: new Date().toISOString(),
  order_id: String(number),
  value: "49.90", // money is text: a JavaScript number cannot hold it
  currency: "EUR",
  click_ids: { generic: `click-${number}` },
});

await client.isReady();
// One argument: the list of events, at most 500. Whole lists are far quicker than one event a message.
client.sendTask("holdfire.intake", [[order(1), order(2)]], {});
// sendTask does not say when the broker has taken the message; disconnecting waits for it.
await new Promise(setImmediate);
await client.disconnect();
console.log("sent 2 events");
