# A NixOS module. UNTESTED: nix-instantiate reads it, and nobody has built or started it.
#
#   imports = [ ./derper/deploy/nixos/derper.nix ];
#   services.trio-derper = { enable = true; domain = "derp.example.com"; openFirewall = true; };

{ config, lib, pkgs, ... }:

let
  cfg = config.services.trio-derper;

  version = builtins.head (builtins.match ".*__version__ = \"([^\"]+)\".*"
    (builtins.readFile ../../derp/__init__.py));

  package = pkgs.python3Packages.buildPythonApplication {
    pname = "trio-derper";
    inherit version;
    src = ../..;
    pyproject = true;
    build-system = [ pkgs.python3Packages.hatchling ];
    dependencies = with pkgs.python3Packages; [
      acme
      attrs
      certifi
      cryptography
      dnspython
      h11
      josepy
      pynacl
      requests
      trio
      trio-websocket
      websockets
    ];
    # They want programs of other projects, and the network.
    doCheck = false;
    meta.mainProgram = "derper";
  };
in
{
  options.services.trio-derper = {
    enable = lib.mkEnableOption "the DERP relay and STUN responder for Tailscale clients, on Trio";

    package = lib.mkOption {
      type = lib.types.package;
      default = package;
      description = "What has bin/derper.";
    };

    domain = lib.mkOption {
      type = lib.types.str;
      example = "derp.example.com";
      description = "Name or address at which clients find the relay.";
    };

    environment = lib.mkOption {
      type = lib.types.attrsOf lib.types.str;
      default = { };
      example = { DERP_VERIFY_CLIENTS = "true"; };
      description = "The DERP_* variables.";
    };

    environmentFile = lib.mkOption {
      type = lib.types.nullOr lib.types.path;
      default = null;
      description = "File with the variables that are secret, which are not for the Nix store.";
    };

    flags = lib.mkOption {
      type = lib.types.listOf lib.types.str;
      default = [ ];
      example = [ "-accept-connection-limit" "1000" ];
      description = "Flags that have no variable.";
    };

    openFirewall = lib.mkOption {
      type = lib.types.bool;
      default = false;
      description = "Let TCP 80 and 443 and UDP 3478 through.";
    };
  };

  config = lib.mkIf cfg.enable {
    networking.firewall = lib.mkIf cfg.openFirewall {
      allowedTCPPorts = [ 80 443 ];
      allowedUDPPorts = [ 3478 ];
    };

    users.users.derper = {
      isSystemUser = true;
      group = "derper";
      home = "/var/lib/derper";
    };
    users.groups.derper = { };

    # As deploy/derper.service, which says why.
    systemd.services.derper = {
      description = "DERP relay and STUN responder for Tailscale clients";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [ "network-online.target" "nss-lookup.target" "tailscaled.service" ];
      environment = {
        DERP_DOMAIN = cfg.domain;
        DERP_KEY_FILE = "/var/lib/derper/derper.key";
        DERP_CERT_DIR = "/var/lib/derper/certs";
      } // cfg.environment;
      serviceConfig = {
        Type = "exec";
        ExecStart = lib.escapeShellArgs ([ "${cfg.package}/bin/derper" ] ++ cfg.flags);
        ExecReload = "${pkgs.coreutils}/bin/kill -HUP $MAINPID";
        EnvironmentFile = lib.mkIf (cfg.environmentFile != null) cfg.environmentFile;
        Restart = "on-failure";
        RestartSec = "5s";
        RestartPreventExitStatus = 2;
        TimeoutStopSec = "10s";
        LimitNOFILE = 524288;
        CPUWeight = 500;
        User = "derper";
        StateDirectory = "derper";
        StateDirectoryMode = "0700";
        UMask = "0077";
        AmbientCapabilities = "CAP_NET_BIND_SERVICE";
        CapabilityBoundingSet = "CAP_NET_BIND_SERVICE";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = "AF_INET AF_INET6 AF_UNIX";
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = [ "@system-service" "~@privileged @resources" ];
      };
    };
  };
}
