// The service without its events: everything that may be made before a role is known everywhere.
targetScope = 'subscription'

@minLength(1)
@maxLength(40)
@description('The azd environment: names the resource group and, with subscription and location, everything in it.')
param environmentName string

@minLength(1)
@description('The region: one that offers Flex Consumption.')
param location string

// Of the parameters below, none is a number or a truth value: azd takes what it cannot read as one
// for the default, and says nothing.

@description('Who deploys: may put keys into the vault, files into containers and messages on queues. Empty: nobody.')
param principalId string = ''

@allowed(['User', 'ServicePrincipal', 'Group'])
param principalType string = 'User'

@description('The object id of a group of Entra ID whose members may do the same. Empty: nobody.')
param operators string = ''

@description('The endpoints, as docs/endpoints.md describes them. The service does not start without one.')
@minLength(1)
param deployments array

@description('Routes that mix models: {"phi3": ["phi3-east", "vllm"]}.')
param routes object = {}

@description('For whom jobs may be run: {"blue": {"weight": 2}}.')
param tenants object = {}

@description('When the nightly container is looked at: six-field NCRONTAB, in UTC.')
param nightlySchedule string = '0 0 1 * * *'

@description('Settings whose values are secrets of the vault: those that key_setting and secret_settings name, and API_KEYS. MY_KEY is the secret my-key.')
param keySettings array = []

@description('The settings with a default that the README lists, by their names, as texts: {"SHARD_SECONDS": "60"}.')
param limits Limits = {}

@allowed(['512', '2048', '4096'])
param instanceMemory string = '2048'

@description('On-demand instances of each function, not of the app: 1 to 1000.')
param maximumInstances string = '40'

@description('Instances that never go away: [{"name": "function:jobs", "instanceCount": 1}].')
param alwaysReady array = []

@allowed(['true', 'false'])
@description('Storage and Service Bus are reached through a virtual network only. Premium Service Bus, billed by the hour.')
param privateNetwork string = 'false'

@allowed(['Standard_LRS', 'Standard_ZRS', 'Standard_GRS', 'Standard_GZRS'])
param storageRedundancy string = 'Standard_ZRS'

@description('Days after which input files go; 0 is never, anything else at least 31: a job may take 30 days.')
param keepInputDays string = '0'

@description('Days after which results go; 0 is never, anything else at least 31.')
param keepResultDays string = '0'

@allowed(['true', 'false'])
@description('Keeps storage from being deleted, by azd down too.')
param lockStorage string = 'false'

@description('Whom alerts and the budget write to. Empty: alerts are only shown in the portal.')
param alertEmail string = ''

@description('What the resource group may cost in a month before alertEmail hears of it, in the currency of the bill; 0 is no budget.')
param monthlyBudget string = '0'

@description('With a budget: the first day of the month in which it began, such as 2026-12-01. Azure does not let it change.')
param budgetStart string = ''

@sealed()
type Limits = {
  MAX_LINE_BYTES: string?
  MAX_FILE_BYTES: string?
  COMPLETION_WINDOW: string?
  SHARD_SECONDS: string?
  JOURNAL_SECONDS: string?
  ENVIRONMENT_PROXIES: string?
  DOWNLOADS: string?
  ENTRA: string?
  WEBHOOKS: string?
  PRIORITY_HOURS: string?
  TELEMETRY: string?
  OTEL_EXPORTER_OTLP_ENDPOINT: string?
  OTEL_EXPORTER_OTLP_PROTOCOL: string?
  OTEL_SERVICE_NAME: string?
  OTEL_RESOURCE_ATTRIBUTES: string?
  OTEL_METRIC_EXPORT_INTERVAL: string?
  OTEL_BSP_SCHEDULE_DELAY: string?
  OTEL_TRACES_EXPORTER: string?
  OTEL_METRICS_EXPORTER: string?
}

var token = toLower(uniqueString(subscription().id, environmentName, location))
var isPrivate = toLower(privateNetwork) == 'true'
var tags = { 'azd-env-name': environmentName }
var people = concat(
  empty(principalId) ? [] : [{ id: principalId, type: principalType }],
  empty(operators) ? [] : [{ id: operators, type: 'Group' }]
)
var inputContainers = ['prompts', 'nightly', 'inputs']
var nightlyContainer = 'nightly'
var filesContainer = 'files'
var resultsContainer = 'results'
var stateContainer = 'state'
var deploymentContainer = 'deployment'

resource group 'Microsoft.Resources/resourceGroups@2024-11-01' = {
  name: 'rg-${environmentName}'
  location: location
  tags: tags
}

module monitoring 'monitoring.bicep' = {
  name: 'monitoring'
  scope: group
  params: {
    location: location
    tags: tags
    workspaceName: 'log-${token}'
    insightsName: 'appi-${token}'
  }
}

module storage 'storage.bicep' = {
  name: 'storage'
  scope: group
  params: {
    location: location
    tags: tags
    accountName: 'st${token}'
    topicName: 'evgt-${token}'
    redundancy: storageRedundancy
    inputContainers: inputContainers
    filesContainer: filesContainer
    resultsContainer: resultsContainer
    stateContainer: stateContainer
    deploymentContainer: deploymentContainer
    privateNetwork: isPrivate
    keepInputDays: int(keepInputDays)
    keepResultDays: int(keepResultDays)
    locked: toLower(lockStorage) == 'true'
  }
}

module bus 'bus.bicep' = {
  name: 'bus'
  scope: group
  params: {
    location: location
    tags: tags
    namespaceName: 'sb-${token}'
    privateNetwork: isPrivate
  }
}

module vault 'vault.bicep' = {
  name: 'vault'
  scope: group
  params: {
    location: location
    tags: tags
    vaultName: 'kv-${token}'
  }
}

module access 'access.bicep' = {
  name: 'access'
  scope: group
  params: {
    location: location
    tags: tags
    identityName: 'id-${token}'
    accountName: storage.outputs.accountName
    deadLetterContainer: storage.outputs.deadLetterContainer
    namespaceName: bus.outputs.namespaceName
    vaultName: vault.outputs.vaultName
    insightsName: monitoring.outputs.insightsName
    topicName: storage.outputs.topicName
    topicPrincipalId: storage.outputs.topicPrincipalId
    people: people
  }
}

module network 'network.bicep' = if (isPrivate) {
  name: 'network'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    accountId: storage.outputs.accountId
    namespaceId: bus.outputs.namespaceId
  }
}

module app 'app.bicep' = {
  name: 'app'
  scope: group
  params: {
    location: location
    tags: tags
    planName: 'plan-${token}'
    siteName: 'func-${token}'
    identityId: access.outputs.identityId
    identityClientId: access.outputs.identityClientId
    accountName: storage.outputs.accountName
    blobEndpoint: storage.outputs.blobEndpoint
    queueEndpoint: storage.outputs.queueEndpoint
    deploymentContainer: deploymentContainer
    busHost: bus.outputs.host
    vaultUri: vault.outputs.vaultUri
    insightsConnection: monitoring.outputs.insightsConnection
    subnetId: isPrivate ? network!.outputs.appSubnetId : ''
    instanceMemory: int(instanceMemory)
    maximumInstances: int(maximumInstances)
    alwaysReady: alwaysReady
    keySettings: keySettings
    settings: union({ TELEMETRY: 'azure-monitor' }, limits, {
      DEPLOYMENTS: string(deployments)
      ROUTES: string(routes)
      TENANTS: string(tenants)
      NIGHTLY_SCHEDULE: nightlySchedule
      INPUT_CONTAINERS: join(inputContainers, ',')
      NIGHTLY_CONTAINER: nightlyContainer
      FILES_CONTAINER: filesContainer
      RESULTS_CONTAINER: resultsContainer
      STATE_CONTAINER: stateContainer
    })
  }
}

module alerts 'alerts.bicep' = {
  name: 'alerts'
  scope: group
  params: {
    location: location
    tags: tags
    token: token
    workspaceId: monitoring.outputs.workspaceId
    namespaceId: bus.outputs.namespaceId
    topicId: storage.outputs.topicId
    siteId: app.outputs.siteId
    alertEmail: alertEmail
    monthlyBudget: int(monthlyBudget)
    budgetStart: budgetStart
  }
}

output AZURE_RESOURCE_GROUP string = group.name
output STORAGE_ACCOUNT string = storage.outputs.accountName
output STORAGE_ACCOUNT_ID string = storage.outputs.accountId
output EVENT_TOPIC string = storage.outputs.topicName
output EVENT_DEAD_LETTER_CONTAINER string = storage.outputs.deadLetterContainer
output BUS_NAMESPACE string = bus.outputs.namespaceName
output JOBS_QUEUE_ID string = bus.outputs.jobsQueueId
output KEY_VAULT string = vault.outputs.vaultName
output WORKSPACE_ID string = monitoring.outputs.workspaceCustomerId
output WORKER_NAME string = app.outputs.siteName
output WORKER_URL string = 'https://${app.outputs.siteHost}'
output WORKER_PRINCIPAL_ID string = access.outputs.identityPrincipalId
