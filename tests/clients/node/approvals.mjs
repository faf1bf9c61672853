// A real browser on the page where people decide what agents ask them, with JavaScript switched off.
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

await page.goto(options.url);
await page.fill('input[name="email"]', options.email);
await page.fill('input[name="password"]', options.password);
await page.click('button[type="submit"]');
await page.waitForSelector("section");
await look("waiting");
for (const [id, decision] of options.decisions) {
  const form = page.locator("form").filter({ has: page.locator(`input[name="id"][value="${id}"]`) });
  await form.locator('input[name="message"]').fill("Seen in a browser.");
  const twice = form.locator('input[name="second_look"]');
  if (decision === "approve" && (await twice.count()) > 0) {
    // Without the tick the browser itself does not send the form.
    await form.locator('[value="approve"]').click();
    if (!page.url().endsWith("/approvals")) {
      problems.push(`the form went to ${page.url()} without a second look`);
    }
    await twice.check();
  }
  await form.locator(`[value="${decision}"]`).click();
  await page.waitForSelector('[role="status"]');
  await look(`${decision}-${options.decisions.findIndex(([other]) => other === id)}`);
}
await browser.close();
console.log(`result ${JSON.stringify({ seen, problems })}`);
