// @hellocoop/httpsig, both ways: signs a request as its option says, or verifies one. It takes its configuration as JSON in
// the first argument and prints `result <json>`.
import { fetch, verify } from "@hellocoop/httpsig";

const options = JSON.parse(process.argv[2]);
let result;
if (options.sign) {
  const { url, signingKey, method, headers, body, components, label, contentDigest } = options.sign;
  const signed = await fetch(url, {
    method,
    headers,
    body: body === undefined ? undefined : new TextEncoder().encode(body),
    signingKey,
    signatureKey: { type: "hwk" },
    components,
    label,
    contentDigest,
    dryRun: true,
  });
  result = Object.fromEntries(signed.headers);
} else {
  const { method, authority, path, query, headers, body } = options.verify;
  const found = await verify(
    { method, authority, path, query, headers, body: body === undefined ? undefined : Buffer.from(body) },
    { requireContentDigest: body !== undefined },
  );
  result = { verified: found.verified, thumbprint: found.thumbprint, error: found.error };
}
console.log("result " + JSON.stringify(result));
