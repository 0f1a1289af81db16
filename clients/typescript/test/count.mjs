// A reporter of one line, in pytest's words: how many tests passed and failed.

export default async function* count(events) {
  const counts = { "test:pass": 0, "test:fail": 0 };
  for await (const { type, data } of events) if (type in counts && data.details.type !== "suite") counts[type]++;
  yield `${counts["test:pass"]} passed, ${counts["test:fail"]} failed\n`;
}
