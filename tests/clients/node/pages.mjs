// A real browser on the pages that people see: sign-in, consent, refusal, with JavaScript switched off.
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
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
  ],
});
const context = await browser.newContext({ javaScriptEnabled: false, viewport: options.viewport });
const page = await context.newPage();
const problems = [];
page.on("console", (message) => problems.push(message.text()));

// Where the client waits there is no server: the address is all that is wanted.
let landed = null;
await context.route(`${options.redirectUri}**`, async (route) => {
  landed = route.request().url();
  await route.fulfill({ status: 200, contentType: "text/plain", body: "landed" });
});

const shot = async (name) => {
  await page.screenshot({ path: `${options.folder}/${name}.png`, fullPage: true });
};

await page.goto(options.url);
await shot("sign-in");
await page.fill('input[name="email"]', options.email);
await page.fill('input[name="password"]', "not the password");
await page.click('button[type="submit"], input[type="submit"]');
await shot("sign-in-refused");
const refused = await page.textContent("body");
await page.fill('input[name="email"]', options.email);
await page.fill('input[name="password"]', options.password);
await page.click('button[type="submit"], input[type="submit"]');
await shot("consent");
const consent = await page.textContent("body");
await page.click(`[value="${options.decision}"]`);
await page.waitForLoadState();
await browser.close();
console.log(`result ${JSON.stringify({ landed, refused, consent, problems })}`);
