// What plans cost. Prices are decimal digits and stay so until they are shown.

import * as api from "./api.js";
import { me } from "./me.js";
import { money } from "./units.js";

const HOURS = 730; // of a month
const SOLD = { "ghz-hour": (plan, ghz) => plan.cpus * (plan.ghz ?? ghz), "memory-gib-hour": (plan) => plan.memory / 2 ** 30, "disk-gib-hour": (plan) => plan.disk / 2 ** 30 };

// null where nobody has set a price, or who asks may not see any.
export async function pricesOf(tenant = me().tenant || "default") {
  let prices;
  try {
    prices = await api.get("/v1/prices");
  } catch (error) {
    if (error.status === 403 || error.status === 404) return null;
    throw error;
  }
  if (!prices.length) return null;
  const today = new Date().toISOString().slice(0, 10);
  const valid = prices.filter((price) => price.valid_from <= today && [null, tenant].includes(price.tenant));
  // The tenant's own before everybody's, the plan's before any plan's, then the latest.
  const weight = (price) => `${price.tenant ? 1 : 0}${price.plan ? 1 : 0}${price.valid_from}`;
  const best = (plan, units) => valid.filter((price) => units.includes(price.unit) && [null, plan].includes(price.plan)).sort((one, other) => (weight(one) < weight(other) ? 1 : -1))[0];

  // What a month costs of what is sold by time: the rest depends on use.
  function monthly(name, plan) {
    const time = best(name, ["month", "hour"]);
    let sum = time ? Number(time.amount) * (time.unit === "hour" ? HOURS : 1) : 0;
    let currency = time?.currency;
    for (const [unit, amount] of Object.entries(SOLD)) {
      const price = best(name, [unit]);
      if (!price || (unit === "ghz-hour" && !plan.ghz)) continue;
      sum += Number(price.amount) * amount(plan) * HOURS;
      currency = price.currency;
    }
    return currency ? `${money(sum < 1 ? sum : sum.toFixed(2), currency)} a month` : null;
  }
  return { words: monthly, monthly };
}
