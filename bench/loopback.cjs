// Preloaded into Portkey's gateway, which listens on every interface and has no option for less: here it keeps to
// this machine.
"use strict";

const net = require("node:net");

const listen = net.Server.prototype.listen;
net.Server.prototype.listen = function (port, _host, ...rest) {
  return listen.call(this, port, "127.0.0.1", ...rest);
};
