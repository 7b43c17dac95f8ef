<powershell>
# runsfleet: get Python and the agent, check them, run the agent. However this ends, the instance
# ends (launch templates turn a shutdown into a termination). EC2Launch runs it at every boot.
$ErrorActionPreference = 'Stop'
$ProgressPreference = 'SilentlyContinue'  # a progress bar makes a download ten times as long
$data = "$env:ProgramData\runsfleet"
$status = 1
try {
  New-Item -ItemType Directory -Force -Path $data | Out-Null
  Start-Transcript -Append -Path "$data\bootstrap.log" | Out-Null

  # first of all what ends this instance if nothing below does; C: is the only disk that is certain
  Set-Content -Encoding UTF8 -Path "$data\watchdog.ps1" -Value @'
# runsfleet: ends this instance when its agent gives no sign of life, or when it lives longer than
# any job may. The system runs it each minute; it depends on nothing but the file that the agent
# touches.
$data = "$env:ProgramData\runsfleet"
$booted = (Get-CimInstance Win32_OperatingSystem).LastBootUpTime
$now = Get-Date
$alive = ($now - $booted).TotalSeconds
$beat = (Get-Item -LiteralPath 'C:\runsfleet\heartbeat' -ErrorAction SilentlyContinue).LastWriteTime
$why = ''
if (-not $beat -or $beat -lt $booted) {
  if ($alive -gt 1800) { $why = 'the agent never gave a sign of life' }
} elseif (($now - $beat).TotalSeconds -gt 300) {
  $why = 'no sign of life from the agent'
}
# twice in a row, since the clock of a young machine jumps
$again = Test-Path -LiteralPath "$data\silent"
Remove-Item -Force -LiteralPath "$data\silent" -ErrorAction SilentlyContinue
if ($why -and -not $again) {
  New-Item -ItemType File -Force -Path "$data\silent" | Out-Null
  $why = ''
}
if ($alive -gt 30000) { $why = 'longer than any job may be' }
if ($why) {
  $text = "runsfleet watchdog: $why; alive for $([int] $alive) s, last sign of life: $beat"
  Add-Content -Path "$data\watchdog.log" -Value "$($now.ToString('o')) $text"
  & "$env:SystemRoot\System32\shutdown.exe" /s /f /t 0 /c $text
}
'@
  $run = "-NoProfile -NonInteractive -ExecutionPolicy Bypass -File `"$data\watchdog.ps1`""
  $task = @{
    TaskName  = 'runsfleet-watchdog'
    Action    = New-ScheduledTaskAction -Execute 'powershell.exe' -Argument $run
    Principal = New-ScheduledTaskPrincipal -UserId 'S-1-5-18' -LogonType ServiceAccount
    Trigger   = New-ScheduledTaskTrigger -Once -At (Get-Date) -RepetitionInterval '00:01:00'
    Settings  = New-ScheduledTaskSettingsSet -StartWhenAvailable -ExecutionTimeLimit '00:05:00'
  }
  Register-ScheduledTask -Force @task | Out-Null

  $env:AWS_REGION = 'eu-west-1'
  $env:AWS_DEFAULT_REGION = 'eu-west-1'
  $env:RUNSFLEET_AGENT_BUCKET = 'assets'
  $env:RUNSFLEET_AGENT_KEY = 'a key.zip'
  $env:RUNSFLEET_AGENT_SHA256 = 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa'
  $env:RUNSFLEET_AGENT_URL_SUFFIX = 'amazonaws.com'
  $env:RUNSFLEET_WATCHDOG_LIFETIME_SECONDS = '30000'
  $env:RUNSFLEET_WATCHDOG_START_SECONDS = '1800'
  $env:RUNSFLEET_WATCHDOG_SILENCE_SECONDS = '300'
  $env:RUNSFLEET_FLEET = 'dev'
  $env:RUNSFLEET_PLATFORM = 'windows-x64'
  $env:RUNSFLEET_REGION = 'eu-west-1'
  $env:RUNSFLEET_TERMINATION_QUEUE_URL = 'https://sqs.eu-west-1.amazonaws.com/1/it''s'
  $env:RUNSFLEET_INSTANCE_ROLE_ID = 'AROAEXAMPLE'
  $env:RUNSFLEET_CONFIG_STORE = 'dynamodb'
  $env:RUNSFLEET_RUNNERS_TABLE = 'runners'
  $env:RUNSFLEET_RUNNER_BUCKET = 'cache'
  $env:RUNSFLEET_LOG_GROUP = '/runsfleet/dev'
  $env:RUNSFLEET_CONFIG_TIMEOUT_SECONDS = '300'
  $env:RUNSFLEET_RUNNER_DISK_BYTES = '1000000000'
  $env:RUNSFLEET_RUNNER_SUDO = 'true'
  $env:RUNSFLEET_STANDBY = 'false'
  $env:RUNSFLEET_PYTHON_URL = 'https://github.com/astral-sh/python-build-standalone/releases/download/20260814/cpython-3.13.15%2B20260814-x86_64-pc-windows-msvc-install_only_stripped.tar.gz'
  $env:RUNSFLEET_PYTHON_SHA256 = '07c977bbe4abad07e3bbc314608633e6c74eab482a7bae81f4361cda970b45e6'
  $root = $env:RUNSFLEET_HOME = 'C:\runsfleet'
  New-Item -ItemType Directory -Force -Path $root | Out-Null
  [Net.ServicePointManager]::SecurityProtocol = [Net.SecurityProtocolType]::Tls12
  $files = 'HKLM:\SYSTEM\CurrentControlSet\Control\FileSystem'
  Set-ItemProperty -Path $files -Name 'LongPathsEnabled' -Value 1

  function Find-Python {
    $ErrorActionPreference = 'Continue'  # what a program says on standard error is no failure
    $test = 'import sys; sys.exit(sys.version_info < (3, 11))'
    $names = @("$root\python\python.exe", "$root\python\tools\python.exe",
      "$root\python\python\python.exe", 'py.exe', 'python.exe', 'python3.exe')
    foreach ($name in $names) {
      $found = @(Get-Command $name -CommandType Application -ErrorAction SilentlyContinue)[0]
      if (-not $found) { continue }
      & $found.Source -c $test 2>$null | Out-Null
      if ($LASTEXITCODE -eq 0) { return & $found.Source -c 'import sys; print(sys.executable)' }
    }
  }
  function Assert-Digest($file, $expected) {
    $digest = (Get-FileHash -Algorithm SHA256 -LiteralPath $file).Hash
    if ($digest -ne $expected) {
      throw "$file has SHA-256 $digest, expected $expected; it is not used"
    }
  }
  function Expand-Package($file, $target) {
    Remove-Item -Recurse -Force -LiteralPath $target -ErrorAction SilentlyContinue
    New-Item -ItemType Directory -Force -Path $target | Out-Null
    & "$env:SystemRoot\System32\tar.exe" -xf $file -C $target
    if ($LASTEXITCODE -ne 0) { throw "tar cannot unpack $file" }
    Remove-Item -Force -LiteralPath $file
  }
  function Invoke-Often([scriptblock] $action) {
    for ($attempt = 1; ; $attempt++) {
      try { & $action; return } catch {
        Write-Output "runsfleet: attempt ${attempt}: $_"
        if ($attempt -ge 6) { throw }
        Start-Sleep -Seconds ([Math]::Min([Math]::Pow(2, $attempt), 20))
      }
    }
  }

  $python = Find-Python
  if (-not $python) {
    if (-not $env:RUNSFLEET_PYTHON_URL) {
      throw 'this image has no Python 3.11 or newer, and the fleet names none to install'
    }
    Write-Output "runsfleet: installing $env:RUNSFLEET_PYTHON_URL"
    $archive = "$root\python.archive"
    Invoke-Often {
      Invoke-WebRequest -UseBasicParsing -Uri $env:RUNSFLEET_PYTHON_URL -OutFile $archive
    }
    Assert-Digest $archive $env:RUNSFLEET_PYTHON_SHA256
    Expand-Package $archive "$root\python"
    $python = Find-Python
    if (-not $python) { throw "no Python 3.11 or newer is in $env:RUNSFLEET_PYTHON_URL" }
  }

  $global:LASTEXITCODE = 0
choco install -y jq
  if ($LASTEXITCODE -ne 0) { throw "a setup command ended with $LASTEXITCODE" }
  $agent = "$root\agent"
  $digest = $env:RUNSFLEET_AGENT_SHA256
  $marker = Get-Content -LiteralPath "$agent\.sha256" -ErrorAction SilentlyContinue
  if ($marker -ne $digest) {
    $archive = "$root\agent.zip"
    $object = @{
      BucketName = $env:RUNSFLEET_AGENT_BUCKET
      Key        = $env:RUNSFLEET_AGENT_KEY
      File       = $archive
      Region     = $env:AWS_REGION
    }
    if ($env:AWS_ENDPOINT_URL) { $object.EndpointUrl = $env:AWS_ENDPOINT_URL }
    # AWS Tools for PowerShell, with the role of the instance
    Invoke-Often { Read-S3Object @object | Out-Null }
    Assert-Digest $archive $digest
    Expand-Package $archive $agent
    Set-Content -Encoding ASCII -LiteralPath "$agent\.sha256" -Value $digest
  }

  $env:PYTHONPATH = $agent
  $env:PYTHONUTF8 = '1'
  if (-not $env:SSL_CERT_FILE) {
    # Windows fetches roots when a program of its own wants one; Python sees those it has by then
    $env:SSL_CERT_FILE = "$agent\botocore\cacert.pem"
  }
  $start = @{
    FilePath               = $python
    ArgumentList           = '-m runsfleet_runtime.agent'
    WorkingDirectory       = $root
    RedirectStandardOutput = "$data\agent.log"
    RedirectStandardError  = "$data\agent.errors.log"
  }
  # in this console, which the agent needs to interrupt a runner
  $process = Start-Process -NoNewWindow -PassThru @start
  $handle = $process.Handle  # without it Windows forgets how the process ended
  $process.WaitForExit()
  $status = $process.ExitCode
  # 0xC000013A: ended with the console, by the shutdown that it asked for
  if ($status -notin 0, -1073741510) {
    Write-Output "runsfleet: the agent died with status $status"
    $start.ArgumentList = "-m runsfleet_runtime.agent.last_words $status"
    $start.RedirectStandardOutput = "$data\last_words.log"
    $start.RedirectStandardError = "$data\last_words.errors.log"
    $words = Start-Process -NoNewWindow -PassThru @start
    if (-not $words.WaitForExit(120000)) { $words.Kill() }
  }
} catch {
  Write-Output "runsfleet: $($_ | Out-String)"
} finally {
  Write-Output "runsfleet: ended with status $status, shutting down"
  try { Stop-Computer -Force } catch { & "$env:SystemRoot\System32\shutdown.exe" /s /f /t 0 }
}
</powershell>
<persist>true</persist>
