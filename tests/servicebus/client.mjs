// The JavaScript client against the broker: prints what it saw as one JSON object a line.
// usage: node client.mjs CONNECTION_STRING
import { ServiceBusClient } from "@azure/service-bus";

const client = new ServiceBusClient(process.argv[2], { retryOptions: { maxRetries: 0 } });
const report = (probe, result) => console.log(JSON.stringify({ probe, result }));
// The client cannot close while it holds a message without an id.
let made = 0;
const message = (body, more = {}) => ({ body, messageId: `m${++made}`, ...more });
const bodies = (messages) => messages.map((each) => each.body.toString());
const code = async (promise) => promise.then(() => "no error", (error) => error.code ?? String(error));

async function take(receiver, count) {
  const messages = [];
  while (messages.length < count) {
    const more = await receiver.receiveMessages(count - messages.length, { maxWaitTimeInMs: 5000 });
    if (more.length === 0) throw new Error(`only ${messages.length} of ${count} messages came`);
    messages.push(...more);
  }
  return messages;
}

async function queues() {
  const sender = client.createSender("js");
  const receiver = client.createReceiver("js");
  await sender.sendMessages(message("one", { subject: "s", applicationProperties: { colour: "red", n: 7 } }));
  const batch = await sender.createMessageBatch();
  for (const body of ["two", "three", "four", "five"]) batch.tryAddMessage(message(body));
  await sender.sendMessages(batch);

  const [one, two, three, four, five] = await take(receiver, 5);
  report("batch", bodies([one, two, three, four, five]));
  report("properties", [one.messageId, one.subject, one.applicationProperties, one.deliveryCount]);
  const renewed = await receiver.renewMessageLock(one);
  report("renew", renewed >= one.lockedUntilUtc || renewed);
  await receiver.completeMessage(one);
  await receiver.abandonMessage(two);
  await receiver.deadLetterMessage(three, { deadLetterReason: "bad", deadLetterErrorDescription: "very bad" });
  await receiver.deferMessage(four);
  const [again] = await take(receiver, 1);
  report("abandon", [again.body, again.deliveryCount]);
  await receiver.completeMessage(again);
  await receiver.completeMessage(five);
  const [deferred] = await receiver.receiveDeferredMessages(four.sequenceNumber);
  report("defer", [deferred.body, deferred.state]);
  await receiver.completeMessage(deferred);
  const letters = client.createReceiver("js", { subQueueType: "deadLetter" });
  const [letter] = await take(letters, 1);
  report("dead letter", [letter.body, letter.deadLetterReason, letter.deadLetterErrorDescription, letter.deadLetterSource]);
  await letters.completeMessage(letter);
  report("nothing left", bodies(await receiver.peekMessages(5)));

  const soon = new Date(Date.now() + 1500);
  const [kept, cancelled] = await sender.scheduleMessages([message("kept"), message("cancelled")], soon);
  await sender.cancelScheduledMessages(cancelled);
  report("scheduled", [kept.lessThan(cancelled), bodies(await take(receiver, 1)), Date.now() >= soon.getTime()]);

  report("oversize", await code(sender.sendMessages(message(Buffer.alloc(300 * 1024)))));
  report("still works", await code(sender.sendMessages(message(Buffer.alloc(200 * 1024)))));
  report("unknown", await code(client.createSender("nowhere").sendMessages(message("x"))));
  report("no session", await code(client.createSender("js-sessions").sendMessages(message("x"))));
}

async function topics() {
  const sender = client.createSender("js-topic");
  await sender.sendMessages([
    message("running", { applicationProperties: { state: "running" } }),
    message("failed", { applicationProperties: { state: "failed" } }),
  ]);
  report("all", bodies(await take(client.createReceiver("js-topic", "all"), 2)));
  const ended = client.createReceiver("js-topic", "ended", { receiveMode: "receiveAndDelete" });
  report("ended", bodies(await take(ended, 1)));
}

async function sessions() {
  const sender = client.createSender("js-sessions");
  await sender.sendMessages([message("a1", { sessionId: "A" }), message("b1", { sessionId: "B" }), message("a2", { sessionId: "A" })]);
  const a = await client.acceptSession("js-sessions", "A");
  await a.setSessionState("half way");
  report("session", [a.sessionId, bodies(await take(a, 2)), (await a.getSessionState()).toString()]);
  report("locked", await code(client.acceptSession("js-sessions", "A")));
  const next = await client.acceptNextSession("js-sessions");
  report("next", [next.sessionId, bodies(await take(next, 1))]);
}

async function subscribe() {
  const sender = client.createSender("js-many");
  const count = 300;
  for (let start = 0; start < count; start += 100) {
    await sender.sendMessages(Array.from({ length: 100 }, (_, index) => message(start + index)));
  }
  const receiver = client.createReceiver("js-many");
  const seen = new Set();
  await new Promise((resolve, reject) => {
    receiver.subscribe(
      {
        processMessage: async (received) => {
          seen.add(received.body);
          if (seen.size === count) resolve();
        },
        processError: async (failure) => reject(failure.error),
      },
      { maxConcurrentCalls: 20 },
    );
  });
  await receiver.close();
  report("subscribe", seen.size);
}

try {
  for (const part of [queues, topics, sessions, subscribe]) await part();
} finally {
  await client.close();
}
