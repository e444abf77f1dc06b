// Sends events over HTTP, from TypeScript, without any package.
// Run it with HOLDFIRE_URL and HOLDFIRE_KEY set: tsc --project . and then node send.js

type ClickIds = Record<string, string>;

interface Envelope {
  version: 1;
  event_id: string;
  source: string;
  /** RFC 3339 with an offset. */
  occurred_at: string;
}

export interface Conversion extends Envelope {
  type: "conversion";
  name: string;
  order_id?: string;
  /** Money is text, such as "49.90". */
  value?: `${number}`;
  currency?: string;
  click_ids?: ClickIds;
  clicked_at?: string;
  partner_id?: string;
  sequence?: number;
  params?: Record<string, string>;
}

interface Signal extends Envelope {
  order_id?: string;
  conversion_event_id?: string;
  sequence?: number;
  reason?: string;
}

export type Refund = Signal & {
  type: "refund";
  /** All of it if left out. */
  amount?: `${number}`;
  amount_is?: "delta" | "cumulative";
  currency?: string;
};
export type Chargeback = Signal & {
  type: "chargeback";
  outcome: "opened" | "won" | "lost";
  amount?: `${number}`;
  currency?: string;
};
export type CreditCheck = Signal & { type: "credit_check"; outcome: "approved" | "declined" | "review" };
export type Cancel = Signal & { type: "cancel" };
export type HoldfireEvent = Conversion | Refund | Chargeback | CreditCheck | Cancel;

export interface Problem {
  code: string;
  field: string;
  reason: string;
  remedy: string;
}

export interface Receipt {
  request_id: string;
  accepted: number;
  duplicates: { index: number; source: string; event_id: string }[];
  rejected: { index: number; problems: Problem[] }[];
}

/** Resolves once everything valid is committed. Throws for an answer that means "send it again". */
export async function send(events: HoldfireEvent[]): Promise<Receipt> {
  const answer = await fetch(`${process.env.HOLDFIRE_URL}/v1/events`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${process.env.HOLDFIRE_KEY}` },
    body: JSON.stringify(events),
  });
  if (answer.status !== 202) {
    throw new Error(`${answer.status}: ${await answer.text()}`);
  }
  return (await answer.json()) as Receipt;
}

const receipt = await send([
  {
    version: 1,
    type: "conversion",
    event_id: "typescript:order:1",
    source: "typescript-shop",
    name: "purchase",
    occurred_at: new Date().toISOString(),
    order_id: "1",
    value: "49.90",
    currency: "EUR",
    click_ids: { generic: "click-1" },
  },
  {
    version: 1,
    type: "refund",
    event_id: "typescript:refund:1",
    source: "typescript-shop",
    occurred_at: new Date().toISOString(),
    order_id: "1",
    amount: "10.00",
    currency: "EUR",
  },
]);
console.log(`${receipt.accepted} accepted, ${receipt.rejected.length} rejected`);
