// What is loaded into Azurite before its own code.
import Module, { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

// Standard input is a pipe from the parent: it ends when the parent does. Unreferenced, so that it
// does not keep a stopped Azurite alive. SIGTERM is what makes it save.
const terminate = () => process.kill(process.pid, "SIGTERM");
process.stdin.resume().on("end", () => setTimeout(terminate, Number(process.env.LINGER_MS)));
process.stdin.unref();

// Two thirds of what Azurite loads is for telemetry, which is off, and for databases instead of its
// folder: without them it is up in less than half the time, in less than half the memory.
delete process.env.AZURITE_DB;
const unused = { applicationinsights: {}, sequelize: { Model: class {} } };
const load = Module._load;
Module._load = function (name, ...others) {
  return Object.hasOwn(unused, name) ? unused[name] : load.call(this, name, ...others);
};

// A lease outlives a restart of Azure's storage. Azurite reads the times of its leases back as text,
// which no date is earlier than, so that each of them has run out; and whoever renews a lease that
// has run out gets it, even though its id is another's.
const require = createRequire(pathToFileURL(process.argv[1]));
const LeaseFactory = require("./lease/LeaseFactory.js").default;
const LeaseExpiredState = require("./lease/LeaseExpiredState.js").default;
const Errors = require("./errors/StorageErrorFactory.js").default;

const dateOf = (time) => (typeof time === "string" ? new Date(time) : time);
const createLeaseState = LeaseFactory.createLeaseState;
LeaseFactory.createLeaseState = (lease, context) => {
  lease.leaseExpireTime = dateOf(lease.leaseExpireTime);
  lease.leaseBreakTime = dateOf(lease.leaseBreakTime);
  return createLeaseState(lease, context);
};

const renew = LeaseExpiredState.prototype.renew;
LeaseExpiredState.prototype.renew = function (leaseId) {
  if (leaseId !== this.lease.leaseId) {
    throw Errors.getLeaseIdMismatchWithLeaseOperation(this.context.contextId);
  }
  return renew.call(this);
};
