// Which view stands at which address.

import { audit } from "./audit.js";
import { create } from "./create.js";
import { events } from "./events.js";
import { images } from "./images.js";
import { instance } from "./instance.js";
import { instances } from "./instances.js";
import { networks, volumes } from "./resources.js";
import { overview } from "./overview.js";
import { plans } from "./plans.js";
import { route } from "./router.js";
import { secrets } from "./secrets.js";
import { snapshots } from "./snapshots.js";
import { tenants } from "./tenants.js";
import { usage } from "./usage.js";

export function registerViews() {
  route("/", overview);
  route("/instances", instances);
  route("/instances/:name/:tab?", instance);
  route("/create", create);
  route("/images", images);
  route("/networks", networks);
  route("/volumes", volumes);
  route("/secrets", secrets);
  route("/snapshots", snapshots);
  route("/plans", plans);
  route("/events", events);
  route("/usage", usage);
  route("/audit", audit);
  route("/tenants", tenants);
}
