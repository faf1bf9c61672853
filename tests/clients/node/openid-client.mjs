// openid-client against a running server: discovery, PAR or not, code, refresh, introspection, revocation, and for an
// agent with a key of its own also token exchange.
//
// It takes its configuration as JSON in the first argument, prints `open <url>` where a person is needed, reads from
// standard input where the person's browser ended, and prints `result <json>`.
import { createInterface } from "node:readline/promises";
import * as client from "openid-client";

const options = JSON.parse(process.argv[2]);
const insecure = { execute: [client.allowInsecureRequests, client.enableNonRepudiationChecks] };

async function authentication() {
  if (!options.privateJwk) {
    return options.basic
      ? client.ClientSecretBasic(options.clientSecret)
      : client.ClientSecretPost(options.clientSecret);
  }
  const { kid, ...jwk } = options.privateJwk;
  const algorithm = { name: "ECDSA", namedCurve: "P-256" };
  const key = await crypto.subtle.importKey("jwk", jwk, algorithm, false, ["sign"]);
  // A server accepts none that ends more than 300 s from now, so one that ends then is surely new. Of the library's own,
  // which live for 60 s, a server that has run for less than that cannot know whether it saw them before.
  const modifyAssertion = (header, payload) => {
    payload.exp = payload.iat + 300;
  };
  return client.PrivateKeyJwt({ key, kid }, { [client.modifyAssertion]: modifyAssertion });
}

const config = await client.discovery(
  new URL(options.issuer),
  options.clientId,
  undefined,
  await authentication(),
  { ...insecure, algorithm: options.algorithm },
);

const verifier = client.randomPKCECodeVerifier();
const nonce = client.randomNonce();
const state = client.randomState();
const parameters = {
  redirect_uri: options.redirectUri,
  scope: options.scope,
  code_challenge: await client.calculatePKCECodeChallenge(verifier),
  code_challenge_method: "S256",
  nonce,
  state,
  access_type: "offline",
  ...(options.resource ? { resource: options.resource } : {}),
};
const url = options.par
  ? await client.buildAuthorizationUrlWithPAR(config, parameters)
  : client.buildAuthorizationUrl(config, parameters);
console.log(`open ${url.href}`);

const lines = createInterface({ input: process.stdin });
const [landed] = await new Promise((resolve) => lines.once("line", (line) => resolve([line])));
lines.close();

const tokens = await client.authorizationCodeGrant(config, new URL(landed), {
  pkceCodeVerifier: verifier,
  expectedNonce: nonce,
  expectedState: state,
  idTokenExpected: true,
});
const claims = tokens.claims();
const refreshed = await client.refreshTokenGrant(config, tokens.refresh_token);
const active = await client.tokenIntrospection(config, refreshed.access_token);
const userinfo = await client.fetchUserInfo(config, refreshed.access_token, claims.sub);
await client.tokenRevocation(config, refreshed.refresh_token);
const inactive = await client.tokenIntrospection(config, refreshed.access_token);

let reused = null;
try {
  await client.refreshTokenGrant(config, refreshed.refresh_token);
} catch (error) {
  reused = error.error;
}

let exchanged = null;
if (options.privateJwk) {
  const own = await client.clientCredentialsGrant(config);
  exchanged = await client.genericGrantRequest(config, "urn:ietf:params:oauth:grant-type:token-exchange", {
    subject_token: own.access_token,
    subject_token_type: "urn:ietf:params:oauth:token-type:access_token",
    scope: "read:documents",
  });
}
const scope = tokens.scope;
console.log(`result ${JSON.stringify({ claims, scope, active, userinfo, inactive, reused, exchanged })}`);
