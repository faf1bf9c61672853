// A real browser on the pages that people see: sign-in, refusal, consent, with JavaScript switched off.
//
// It takes its configuration as JSON in the first argument, writes screenshots into a folder, and prints `result <json>`.
import { chromium } from "playwright-core";

const options = JSON.parse(process.argv[2]);
const browser = await chromium.launch({
  executablePath: options.chromium,
  args: [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--no-proxy-server",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    // Where the client waits there is no server, and nobody is asked where it might be.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE [::1]",
  ],
});
const context = await browser.newContext({ javaScriptEnabled: false, viewport: options.viewport });
const page = await context.newPage();
const problems = [];
page.on("console", (message) => problems.push(message.text()));

const seen = {};
const look = async (name) => {
  await page.screenshot({ path: `${options.folder}/${name}.png`, fullPage: true });
  const [width, room] = await page.evaluate(() => [
    document.documentElement.scrollWidth,
    document.documentElement.clientWidth,
  ]);
  if (width > room) {
    problems.push(`${name} is ${width} pixels wide where there are ${room}`);
  }
  seen[name] = await page.innerText("body");
};
const signIn = async (password) => {
  await page.fill('input[name="email"]', options.email);
  await page.fill('input[name="password"]', password);
  await page.click('button[type="submit"]');
};

await page.goto(options.url);
let landed = null;
if (options.decision) {
  await look("sign-in");
  await signIn("not the password");
  await page.waitForSelector('[role="alert"]');
  await look("sign-in-refused");
  await signIn(options.password);
  await page.waitForSelector('[name="decision"]');
  await look("consent");
  const leaves = page.waitForRequest((request) => request.url().startsWith(options.redirectUri), { timeout: 10000 });
  await page.click(`[value="${options.decision}"]`, { noWaitAfter: true });
  landed = await leaves.then(
    (request) => request.url(),
    () => null,
  );
} else {
  await look("page");
}
await browser.close();
console.log(`result ${JSON.stringify({ landed, seen, problems })}`);
