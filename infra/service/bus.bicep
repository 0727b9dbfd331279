// The queues, the topic and its subscriptions: those of Config.json, which the local broker reads.
param location string
param tags object
param namespaceName string
param privateNetwork bool

var entities = any(loadJsonContent('../../Config.json')).UserConfig.Namespaces[0]
var status = entities.Topics[0]

// What is made beneath a namespace at one time may be refused as a conflict: hence batches of one.

// The emulator keeps a message for an hour at most and knows duplicates for five minutes.
var timeToLive = 'P14D'
var duplicateWindow = 'PT10M'

var rules = flatten(map(
  range(0, length(status.Subscriptions)),
  at => map(status.Subscriptions[at].Rules, rule => {
    subscription: at
    name: rule.Name
    expression: rule.Properties.SqlFilter.SqlExpression
  })
))

resource namespace 'Microsoft.ServiceBus/namespaces@2024-01-01' = {
  name: namespaceName
  location: location
  tags: tags
  sku: privateNetwork
    ? { name: 'Premium', tier: 'Premium', capacity: 1 }
    : { name: 'Standard', tier: 'Standard' }
  properties: {
    disableLocalAuth: true
    minimumTlsVersion: '1.2'
    publicNetworkAccess: privateNetwork ? 'Disabled' : 'Enabled'
  }
}

// Event Grid sends as a trusted service: no other caller passes from outside.
resource firewall 'Microsoft.ServiceBus/namespaces/networkRuleSets@2024-01-01' = if (privateNetwork) {
  parent: namespace
  name: 'default'
  properties: {
    publicNetworkAccess: 'Disabled'
    defaultAction: 'Deny'
    trustedServiceAccessEnabled: true
  }
}

@batchSize(1)
resource queues 'Microsoft.ServiceBus/namespaces/queues@2024-01-01' = [
  for queue in entities.Queues: {
    parent: namespace
    name: queue.Name
    properties: {
      deadLetteringOnMessageExpiration: queue.Properties.DeadLetteringOnMessageExpiration
      defaultMessageTimeToLive: timeToLive
      lockDuration: queue.Properties.LockDuration
      maxDeliveryCount: queue.Properties.MaxDeliveryCount
      requiresDuplicateDetection: queue.Properties.RequiresDuplicateDetection
      requiresSession: queue.Properties.RequiresSession
    }
  }
]

resource topic 'Microsoft.ServiceBus/namespaces/topics@2024-01-01' = {
  parent: namespace
  name: status.Name
  properties: {
    defaultMessageTimeToLive: timeToLive
    duplicateDetectionHistoryTimeWindow: duplicateWindow
    requiresDuplicateDetection: status.Properties.RequiresDuplicateDetection
  }
}

@batchSize(1)
resource subscriptions 'Microsoft.ServiceBus/namespaces/topics/subscriptions@2024-01-01' = [
  for subscription in status.Subscriptions: {
    parent: topic
    name: subscription.Name
    properties: {
      deadLetteringOnMessageExpiration: subscription.Properties.DeadLetteringOnMessageExpiration
      defaultMessageTimeToLive: timeToLive
      lockDuration: subscription.Properties.LockDuration
      maxDeliveryCount: subscription.Properties.MaxDeliveryCount
      requiresSession: subscription.Properties.RequiresSession
    }
  }
]

// A rule of another name replaces $Default, which lets everything through.
@batchSize(1)
resource filters 'Microsoft.ServiceBus/namespaces/topics/subscriptions/rules@2024-01-01' = [
  for rule in rules: {
    parent: subscriptions[rule.subscription]
    name: rule.name
    properties: {
      filterType: 'SqlFilter'
      sqlFilter: { sqlExpression: rule.expression }
    }
  }
]

output namespaceName string = namespace.name
output namespaceId string = namespace.id
output host string = '${namespace.name}.servicebus.windows.net'
output jobsQueueId string = resourceId('Microsoft.ServiceBus/namespaces/queues', namespace.name, 'jobs')
